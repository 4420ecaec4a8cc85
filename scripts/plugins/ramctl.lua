--[[ darktable: tag the selected photos with ramctl (Linux, macOS).

Copy this file to ~/.config/darktable/lua/ramctl.lua and add the line `require "ramctl"` to
~/.config/darktable/luarc. In the lighttable, "selected image(s) > tag with ramctl" then writes tags
such as auto|dog into the sidecars and attaches them. Keywords of yours stay, and what ramctl gave
before and does not give any more goes. ]]

local dt = require "darktable"

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function content(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("a")
  file:close()
  return text
end

local CHARACTERS = { ["&lt;"] = "<", ["&gt;"] = ">", ["&quot;"] = '"', ["&apos;"] = "'", ["&amp;"] = "&" }

local function given(photo)  -- the tags that are ramctl's own, by its record in the sidecar
  local tags = {}
  for _, sidecar in ipairs { photo .. ".xmp", (photo:gsub("%.[^./]*$", "")) .. ".xmp" } do
    local field = content(sidecar):match(":addedHierarchicalSubject[^>]*>(.-)</[%w]+:addedHierarchicalSubject>")
    for tag in (field or ""):gmatch("<rdf:li>(.-)</rdf:li>") do
      tags[tag:gsub("&%a+;", CHARACTERS)] = true
    end
  end
  return tags
end

local function tag_photos(images)
  if #images == 0 then return dt.print("ramctl: no photo is selected") end
  local place = dt.preferences.read("ramctl", "command", "string")
  local command = quoted(place ~= "" and place or "ramctl")
  if not os.execute(command .. " --version > /dev/null 2>&1") then
    return dt.print("ramctl is not installed, or darktable does not find it: preferences > lua options > ramctl")
  end
  local list, notes, before = os.tmpname(), os.tmpname(), {}
  local file = assert(io.open(list, "wb"))
  for i, image in ipairs(images) do
    local photo = image.path .. "/" .. image.filename
    before[i] = given(photo)
    file:write(photo, "\0")
  end
  file:close()
  dt.print(("ramctl: looking at %d photos"):format(#images))
  local line = ("{ %s tag -0 - < %s | %s export --xmp; } 2> %s"):format(command, list, command, notes)
  local execute = dt.configuration.has_gui and dt.control.execute or os.execute
  execute(line)  -- by dt.control the window stays usable meanwhile
  local tagged = 0
  for i, image in ipairs(images) do
    local after = given(image.path .. "/" .. image.filename)
    for tag in pairs(after) do image:attach_tag(dt.tags.create(tag)) end
    for tag in pairs(before[i]) do
      local known = not after[tag] and dt.tags.find(tag)
      if known then image:detach_tag(known) end
    end
    tagged = tagged + (next(after) and 1 or 0)
  end
  local said = content(notes)
  local trouble = said:match("[^\n]*")
  if trouble:match("^ramctl tag: %d+ in,") then trouble = "" end  -- the count, which comes last
  dt.print_log(said)
  dt.print(("ramctl: %d of %d photos have tags. %s"):format(tagged, #images, trouble))
  os.remove(list)
  os.remove(notes)
end

if dt.configuration.has_gui then  -- else registering waits for ever
  dt.preferences.register("ramctl", "command", "string", "ramctl: command",
    "where ramctl is, such as /home/me/ramctl/bin/ramctl", "ramctl")
  dt.gui.libs.image.register_action("ramctl", "tag with ramctl",
    function(_, images) tag_photos(images) end, "tag the selected photos with ramctl")
end
return { tag_photos = tag_photos }
