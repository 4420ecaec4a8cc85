"""The other taggers of the paper's tables, behind one small interface: `open_peer`."""

from ramctl.peers.registry import is_peer, open_detector, open_peer

__all__ = ["is_peer", "open_detector", "open_peer"]
