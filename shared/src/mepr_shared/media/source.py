"""Opens a media file: a real file, a container of recordings, and nothing that it points at."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from types import TracebackType
from typing import IO, Any, Self

from mepr_shared.errors import require
from mepr_shared.media.problem import MediaProblem

# FFmpeg also knows formats that are lists of other files, network addresses or devices (hls, dash,
# concat, sdp, rtsp, lavfi ...), and text. A file that only pretends to be a recording must not
# make us read what it names, so we name what we read. "*_pipe" are single images.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,apng,asf,au,av1,avi,bmp_pipe,caf,dsf,dts,dv,eac3,flac,flv,"
    "gif,h261,h263,h264,hevc,iff,ircam,ivf,jpeg_pipe,jpegxl_pipe,m4v,matroska,mjpeg,mlp,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nistsphere,nsv,nut,obu,ogg,pbm_pipe,pgm_pipe,png_pipe,"
    "ppm_pipe,qcp,qoi_pipe,rm,sox,tak,tiff_pipe,truehd,tta,vc1,voc,w64,wav,webp_pipe,wtv,wv,"
    "yuv4mpegpipe"
)
# A picture of more pixels is refused before it is decoded: a file of some kB can hold gigabytes.
MOST_PIXELS = 100_000_000
# Containers that state how long a stream is; others have it guessed from size and bit rate.
_EXACT_DURATION = {"mov", "matroska", "flac", "wav", "w64", "aiff", "caf", "avi", "ogg"}
# Sizes that programs write into a WAV header when they cannot know better.
_WAV_SIZE_UNKNOWN = 0x7FFF0000


class Source:
    """An open media file, and the one stream of it that is read.

    Attributes:
        container: PyAV's input container.
        origin_s: the container's own time of what we call 0.
        stream: the stream chosen by `choose_audio` or `choose_video`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file.

        Raises:
            MediaProblem: `no_media` where there is no regular file that can be read, `decode_error`
                where it holds no media.
        """
        self._path = path
        self._open()
        self.origin_s = self._origin_s()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close container and file; again does nothing."""
        self.container.close()
        self._file.close()

    def restart(self) -> None:
        """Back to the first packet, by opening anew: not every container can be sent there."""
        index = self.stream.index
        self.close()
        self._open()
        self._choose(self.container.streams[index])

    def choose_audio(self) -> None:
        """Read the audio stream that a player would.

        Raises:
            MediaProblem: `no_audio`; `decode_error` where FFmpeg has no decoder for it.
        """
        stream = self.container.streams.best("audio")
        if stream is None:
            raise MediaProblem("no_audio", "the file has no audio stream")
        self._choose(stream)

    def choose_video(self) -> None:
        """Read the video stream that a player would; cover art is none.

        Raises:
            MediaProblem: `no_video`; `decode_error` where there is no decoder for it or its
                pictures are too large.
        """
        cover = require("av.stream", extra="mepr-shared[media]").Disposition.attached_pic
        streams = self.container.streams
        likely = (streams.best("video"), *streams.video)
        stream = next((s for s in likely if s is not None and not s.disposition & cover), None)
        if stream is None:
            raise MediaProblem("no_video", "the file has no video stream")
        self._choose(stream)
        width, height = stream.codec_context.width, stream.codec_context.height
        # FFmpeg gives no size where it refused to look into a picture because of its size.
        if width * height > MOST_PIXELS or (self.is_image and not width * height):
            known = f"{width} x {height} pixels" if width * height else "unreadable, or"
            limit = f"above {MOST_PIXELS // 10**6} megapixels"
            raise MediaProblem("decode_error", f"the picture is {known} {limit}")

    @property
    def is_image(self) -> bool:
        """Whether this is a single picture."""
        return str(self.container.format.name).endswith("_pipe")

    @property
    def duration_s(self) -> float | None:
        """Length in seconds as the container states or FFmpeg guesses it."""
        microseconds = self.container.duration
        return None if microseconds is None or self.is_image else microseconds / 1e6

    @property
    def tick_s(self) -> float:
        """The unit of the stream's time stamps in seconds."""
        return float(self.stream.time_base or 0)

    def seconds(self, stamp: int) -> float:
        """A time stamp of the stream as seconds since the start of the file."""
        return stamp * self.tick_s - self.origin_s

    def demux(self) -> Generator[Any, None, None]:
        """Packets of the stream; the last is empty and makes the decoder give what it holds."""
        # PyAV stumbles over streams that began while it read (MPEG-TS), after ours is complete.
        with contextlib.suppress(IndexError):
            yield from self.container.demux(self.stream)

    def seek(self, time_s: float) -> bool:
        """Go to where decoding must begin for a time on the file's timeline; False if it cannot."""
        if not self.stream.time_base:
            return False
        stamp = round((time_s + self.origin_s) / self.stream.time_base)
        try:
            self.container.seek(stamp, stream=self.stream)
        except decode_errors():
            return False
        return True

    def declared_end_s(self) -> float | None:
        """Where the container says that the stream ends; None where it does not say so exactly."""
        if not _EXACT_DURATION.intersection(self.container.format.name.split(",")):
            return None
        if self.stream.duration is not None:
            end = self.seconds((self.stream.start_time or 0) + self.stream.duration)
        elif len(self.container.streams) == 1 and self.duration_s is not None:
            end = self.duration_s
        else:
            return None
        return end * self._wav_cut()

    def _open(self) -> None:
        av = require("av", extra="mepr-shared[media]")
        self._file = _open_file(self._path)
        try:
            self.container: Any = av.open(
                self._file,
                # The list of formats keeps out what refers to other files; should one of them do
                # it nevertheless, no protocol (file, http, ...) is there to open them with.
                options={
                    "format_whitelist": FORMATS,
                    "protocol_whitelist": "none",
                    "max_pixels": str(MOST_PIXELS),
                },
                # Tags in an old encoding are no reason to refuse the recording.
                metadata_errors="replace",
            )
        except decode_errors() as error:
            empty = os.fstat(self._file.fileno()).st_size == 0
            self._file.close()
            raise MediaProblem("decode_error", _why_not(error, empty)) from error
        except BaseException:
            self._file.close()
            raise

    def _choose(self, stream: Any) -> None:
        """Read this stream, and tell the demuxer to pass over the others."""
        self.stream: Any = stream
        if stream.codec_context is None:
            raise MediaProblem("decode_error", f"FFmpeg has no decoder for the {stream.type}")
        if stream.type == "video":
            # For pictures that grow in the middle of the stream.
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            # FFmpeg's threads were seen to wait for each other for ever when a decoder is drained
            # and fed again. Files are decoded beside one another instead.
            stream.codec_context.thread_count = 1
        av_stream = require("av.stream", extra="mepr-shared[media]")
        # A matter of speed alone: PyAV before 18 cannot say it, and reads the others in vain.
        if hasattr(av_stream.Stream, "discard"):
            for other in self.container.streams:
                if other.index != stream.index:
                    other.discard = av_stream.Discard.all

    def _origin_s(self) -> float:
        if self.container.start_time is not None:
            return float(self.container.start_time / 1e6)
        starts = [
            float(stream.start_time * stream.time_base)
            for stream in self.container.streams
            if stream.start_time is not None and stream.time_base
        ]
        return min(starts, default=0.0)

    def _wav_cut(self) -> float:
        """How many times longer than it is a WAV file says to be; FFmpeg passes over that."""
        if self.container.format.name != "wav":
            return 1.0
        header = os.pread(self._file.fileno(), 8, 0)
        declared = int.from_bytes(header[4:8], "little") + 8
        size = os.fstat(self._file.fileno()).st_size
        # Some programs forget the padding byte or the header.
        cut = header[:4] == b"RIFF" and size + 64 < declared < _WAV_SIZE_UNKNOWN
        return declared / size if cut else 1.0


def decode_errors() -> tuple[type[BaseException], ...]:
    """What PyAV raises for media that it cannot read, and the disk for a file that it cannot."""
    av_error = require("av.error", extra="mepr-shared[media]")
    return av_error.FFmpegError, OSError


def describe(error: BaseException) -> str:
    """An error's own text in one line, without the path that PyAV appends."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def _why_not(error: BaseException, empty: bool) -> str:
    if empty:
        return "the file is empty"
    if getattr(error, "errno", None) == errno.EINVAL:
        return "not a kind of recording that is read here (playlists and the like are not)"
    return f"not readable as media: {describe(error)}"


def _open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        # Looked at before it is opened: to open a pipe waits for its writer, and a device may act.
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise MediaProblem("no_media", "this is a folder")
        if not stat.S_ISREG(mode):
            raise MediaProblem("no_media", "this is no regular file")
        # Opened by number: FFmpeg must not see the name, for it guesses from that as well.
        return open(os.open(path, os.O_RDONLY), "rb", buffering=0)
    except (OSError, ValueError) as error:
        raise MediaProblem("no_media", f"cannot be opened: {describe(error)}") from error
