"""What RTP carries: FFmpeg tells it only once a server has answered."""

from __future__ import annotations

_VIDEO = ("h264", "hevc", "mjpeg", "mpeg4", "mpeg1video", "mpeg2video", "h263", "vp8", "vp9", "av1", "theora")
_SOUND = ("aac", "mp2", "mp3", "opus", "vorbis", "pcm_alaw", "pcm_mulaw", "pcm_s16be", "pcm_s24be", "pcm_u8")
_SPEECH = ("adpcm_g722", "amr_nb", "amr_wb", "ilbc", "speex")

_CODECS = frozenset((*_VIDEO, *_SOUND, *_SPEECH))
"""After `is_supported` of libavformat/rtpenc.c (FFmpeg 8)."""


def rtp_takes(codec: str) -> bool:
    """Return whether RTP carries a codec, by its canonical name."""
    return codec in _CODECS
