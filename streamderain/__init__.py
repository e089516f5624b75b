"""streamderain takes the rain out of video.

Importing the package imports no runtime, no media library and no torch; each is loaded on first use.
"""

__version__ = "0.1.0"
