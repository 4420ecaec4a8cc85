#!/bin/sh
# digiKam: tag photos with ramctl in the Batch Queue Manager (Linux, macOS).
#
# Base Tools > Custom Tools > User Shell Script, alone in its queue, with the script
#
#     sh /where/this/is/digikam.sh $INPUT $OUTPUT
#
# and, in the queue's settings, "save to original album" and "overwrite". digiKam then puts the same
# photo in its own place, and beside it the sidecar: what was in it, and tags such as auto/dog. In
# digiKam's settings > Metadata > Sidecars, reading and writing of sidecars must be on; tags that are
# in digiKam's database alone are written by Item > Write Metadata to File before.
# RAMCTL in the environment says where ramctl is.

ramctl=${RAMCTL:-ramctl}

stop() { # code, what is wrong: without an output digiKam says that the photo failed, and keeps it
    echo "ramctl: $2" >&2
    command -v notify-send > /dev/null && notify-send ramctl "$2"
    rm -f "$output.xmp"
    [ -z "$output" ] || : > "$output"
    exit "$1"
}

input=$1 output=$2
if [ $# -ne 2 ]; then
    output=
    stop 2 'usage: digikam.sh $INPUT $OUTPUT'
fi
command -v "$ramctl" > /dev/null ||
    stop 127 "ramctl is not installed, or not in the PATH: install it, or set RAMCTL"
case $input in
*digikamtempfile*)
    # What another tool of the queue made: the photo's own sidecar cannot be found from it.
    stop 1 "the User Shell Script must be the first tool of its queue"
    ;;
esac

cp -p "$input" "$output" || stop 1 "cannot write $output"
if [ -e "$input.xmp" ]; then
    cp -p "$input.xmp" "$output.xmp" || stop 1 "cannot write $output.xmp"
fi
records=$("$ramctl" tag "$output") || stop 1 "cannot tag $input"
printf '%s\n' "$records" | "$ramctl" export -q --xmp || stop 1 "cannot write the sidecar of $input"
