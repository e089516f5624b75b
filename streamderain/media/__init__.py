"""Demuxer and writing media. The only room that imports av."""
