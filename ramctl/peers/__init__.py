"""The other taggers of the paper's tables, behind one small interface: `open_peer`."""

from ramctl.peers.registry import is_peer, open_detector, open_peer, peer_kinds

__all__ = ["is_peer", "open_detector", "open_peer", "peer_kinds"]
