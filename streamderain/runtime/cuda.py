"""CUDA devices, memory, and the double buffer (cuda-core; no torch).

While one frame is computed, the next is copied to the device and the one before is copied back, on a stream
each. Nothing waits for the host but what the host itself reads or writes; everything else waits for events:

    host        writes a frame's pinned memory     after its last copy to the device
    copy-in     overwrites a frame on the device   after the last computation that reads it
    compute     reads frames and inputs            after the inputs' copy, the last of all of them
    copy-out    reads the result                   after the computation
    host        reads the result                   after its copy
    everything  of a slot is used again            after the host is done with the result

A frame is uploaded once and read by every window it belongs to. Memory is made once and used again.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from cuda.bindings import driver
from cuda.core import Buffer, Device, Event, EventOptions, LegacyPinnedMemoryResource, Stream
from cuda.core._utils.cuda_utils import CUDAError
from cuda.core.graph import Graph
from numpy.typing import DTypeLike, NDArray

from streamderain.closable import Closable
from streamderain.errors import DeviceMemoryError, EngineUnavailable, InferenceError
from streamderain.frame import Plane

ALIGNMENT_BYTES = 256
"""What kernels may expect of an address (CUDA's own allocations have it)."""

_POLL_S = 0.0002
_GRAPHS_PER_SLOT = 16

Arrays = Mapping[str, Plane]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One array in a block of memory."""

    name: str
    shape: tuple[int, ...]
    dtype: DTypeLike


class Layout:
    """Places tensors in one block of memory, so that one copy moves them all.

    Args:
        tensors: What the block holds, in order.

    Attributes:
        tensors: The same.
        size_bytes: Of the whole block.
        offsets: Where each tensor begins, bytes, by name.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)
        self.offsets: dict[str, int] = {}
        end = 0
        for tensor in self.tensors:
            self.offsets[tensor.name] = end
            size = int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
            end += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self.size_bytes = max(end, ALIGNMENT_BYTES)

    def views(self, memory: NDArray[np.uint8]) -> dict[str, Plane]:
        """Return the tensors as views of a block's bytes."""
        found = {}
        for tensor in self.tensors:
            dtype, start = np.dtype(tensor.dtype), self.offsets[tensor.name]
            size = int(np.prod(tensor.shape, dtype=np.int64)) * dtype.itemsize
            found[tensor.name] = memory[start : start + size].view(dtype).reshape(tensor.shape)
        return found


def device_count() -> int:
    """Return how many CUDA devices the driver has; 0 where there is no driver."""
    try:
        (error,) = driver.cuInit(0)
        if error != driver.CUresult.CUDA_SUCCESS:
            return 0
        _, count = driver.cuDeviceGetCount()
    except RuntimeError:  # its library is not there, or lacks what is asked of it
        return 0
    return int(count or 0)


def open_device(name: str) -> Device:
    """Return a CUDA device, current on this thread.

    Args:
        name: `"auto"` or `"cuda"` for the first, or `"cuda:N"`.

    Raises:
        EngineUnavailable: There is no such device.
    """
    matched = re.fullmatch(r"(?:auto|cuda)|cuda:(\d+)", name)
    if matched is None:
        raise EngineUnavailable(
            f"the device {name!r} is no CUDA device; use cuda or cuda:N, or --engine openvino for a processor"
        )
    number, count = int(matched[1] or 0), device_count()
    if not count:
        raise EngineUnavailable(
            "no CUDA device was found: there is no NVIDIA driver, or it sees no GPU (nvidia-smi tells more). "
            "Leave --engine out to use what is here; plans for other machines are built by "
            "streamderain engine build --for smNN"
        )
    if number >= count:
        raise EngineUnavailable(
            f"there is no device cuda:{number}; this machine has {count}, numbered from cuda:0"
        )
    with cuda_errors("the GPU could not be opened"):
        device = Device(number)
        device.set_current()
    return device


def free_bytes() -> int:
    """Return the memory that the current device has left."""
    _, free, _ = driver.cuMemGetInfo()
    return int(free or 0)


@contextmanager
def cuda_errors(what: str) -> Iterator[None]:
    """Translate CUDA's errors.

    Args:
        what: What failed, for the message.

    Raises:
        DeviceMemoryError: The device has no memory left.
        InferenceError: Anything else.
    """
    try:
        yield
    except CUDAError as error:
        if "OUT_OF_MEMORY" in str(error):
            raise DeviceMemoryError(
                f"{what}: too little memory is free on the GPU. Close what else uses it, scale the video "
                "down, or choose another --device"
            ) from error
        raise InferenceError(
            f"{what}: {str(error).partition('. ')[0]}. The GPU may have been lost or reset: look "
            "into the system's log (dmesg, nvidia-smi), then run again, or use --engine openvino"
        ) from error


class Context(Protocol):
    """Computes one frame at a time; each slot has its own."""

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """Have a frame computed on a stream.

        Args:
            addresses: Device address of every input and output, by name.
            stream: Handle of the stream.

        Raises:
            InferenceError: It was refused.
        """


class Program(Protocol):
    """What makes contexts.

    Attributes:
        scratch_bytes: Device memory that one computation needs for itself.
        capturable: Whether enqueueing can be recorded as a CUDA graph and replayed.
    """

    scratch_bytes: int
    capturable: bool

    def context(self, scratch: int) -> Context:
        """Return a context that computes in the memory at an address.

        All contexts may share it: on one stream one computation follows the other.
        """


class Block:
    """Pinned memory and as much device memory, holding the same tensors.

    Attributes:
        arrays: The tensors in pinned memory, by name.
        copied: Ends with the last copy between both.
        read: Ends with the last computation that reads the device's side.
        turn: Number of its last use.
    """

    def __init__(self, device: Device, stream: Stream, layout: Layout) -> None:
        self._layout = layout
        self.turn = 0
        self.pinned: Buffer = LegacyPinnedMemoryResource().allocate(layout.size_bytes)
        self.device: Buffer = device.allocate(layout.size_bytes, stream=stream)
        self.copied = device.create_event(EventOptions(blocking_sync=True))
        self.read = device.create_event()
        self.arrays = layout.views(np.from_dlpack(self.pinned).view(np.uint8))
        self._address = int(self.device.handle)

    def addresses(self, prefix: str = "") -> dict[str, int]:
        """Return where each tensor lies on the device, by name."""
        return {f"{prefix}{name}": self._address + at for name, at in self._layout.offsets.items()}

    def close(self, stream: Stream) -> None:
        """Free the device's memory; nothing may be queued that uses it.

        Pinned memory lives as long as anybody looks at its arrays.
        """
        self.arrays = {}
        self.device.close(stream)


class Lease:
    """Holds a frame's memory: it is used again once nobody refers to the lease any more."""

    __slots__ = ("__weakref__", "block")

    def __init__(self, block: Block) -> None:
        self.block = block


class Slot:
    """What one computation needs beside frames, from its start until its result was used.

    Attributes:
        context: Computes.
        inputs: The small inputs, made anew for each frame.
        outputs: The result; its event `copied` says that the host may read it.
        began: Ends when the computation may begin.
        computed: Ends with the computation.
        graphs: Recorded computations, by the addresses of the frames they read; None where one was computed
            once and not yet recorded.
    """

    def __init__(self, context: Context, inputs: Block, outputs: Block, device: Device) -> None:
        self.context, self.inputs, self.outputs = context, inputs, outputs
        self.began, self.computed = (device.create_event(EventOptions(timing_enabled=True)) for _ in range(2))
        self.graphs: OrderedDict[tuple[int, ...], Graph | None] = OrderedDict()

    @property
    def computed_s(self) -> float:
        """How long the device computed, once the result is there."""
        return float(self.computed - self.began) / 1000


class Streams:
    """The three streams, and what waits for what: each method is needed, or frames are wrong."""

    def __init__(self, device: Device) -> None:
        self.copy_in, self.compute, self.copy_out = (device.create_stream() for _ in range(3))

    def host_writes_after_copy(self, block: Block) -> None:
        """Let the host write a frame's pinned memory only after its last copy to the device."""
        block.copied.sync()

    def copy_in_after_reads(self, block: Block) -> None:
        """Overwrite a frame on the device only after the last computation that reads it."""
        self.copy_in.wait(block.read)

    def compute_after_copies(self, slot: Slot) -> None:
        """Read inputs and frames only after their copies to the device; frames are copied before inputs."""
        self.compute.wait(slot.inputs.copied)

    def copy_out_after_compute(self, slot: Slot) -> None:
        """Copy the result only after the computation."""
        self.copy_out.wait(slot.computed)

    def host_reads_after_copy(self, event: Event, timeout_s: float | None) -> bool:
        """Let the host read the result only after its copy; return whether that came in time."""
        if timeout_s is None:
            event.sync()
            return True
        deadline = time.monotonic() + timeout_s
        while not event.is_done:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def drain(self) -> None:
        """Wait until nothing is queued any more; a lost device has nothing to wait for."""
        for stream in (self.copy_in, self.compute, self.copy_out):
            with suppress(CUDAError):
                stream.sync()

    def close(self) -> None:
        """Give the streams back."""
        for stream in (self.copy_in, self.compute, self.copy_out):
            stream.close()


class DoubleBuffer(Closable):
    """Uploads, computes and downloads frames at the same time, on one device.

    Args:
        device: Where.
        program: What computes.
        frame: The tensors of an uploaded frame.
        inputs: The small inputs of a computation.
        outputs: The tensors of its result.
        slots: How many results may be under way or in use.
        frames: How many uploaded frames there is memory for from the start; more is made where it is needed.

    Raises:
        DeviceMemoryError: The device has too little memory.
    """

    def __init__(
        self,
        device: Device,
        program: Program,
        *,
        frame: Layout,
        inputs: Layout,
        outputs: Layout,
        slots: int,
        frames: int,
    ) -> None:
        self._device, self._program, self._frame = device, program, frame
        self._blocks: list[Block] = []
        self._scratch: Buffer | None = None
        self._unused: list[Block] = []
        self._uploads = 0
        self._slots: list[Slot] = []
        self._order = threading.Lock()
        self._uploading = threading.Lock()
        self._closed = False
        device.set_current()
        with cuda_errors("a frame's memory could not be set up"):
            self.streams = Streams(device)
            try:
                self._allocate(inputs, outputs, slots)
                self._unused += [self._block(frame) for _ in range(frames)]
                # Memory belongs to the stream it was asked for on until that is done.
                self.streams.copy_in.sync()
            except BaseException:
                self.close()
                raise

    def _allocate(self, inputs: Layout, outputs: Layout, slots: int) -> None:
        stream = self.streams.copy_in
        self._scratch = self._device.allocate(max(self._program.scratch_bytes, 1), stream=stream)
        for _ in range(slots):
            context = self._program.context(int(self._scratch.handle))
            self._slots.append(Slot(context, self._block(inputs), self._block(outputs), self._device))

    def _block(self, layout: Layout) -> Block:
        self._blocks.append(Block(self._device, self.streams.copy_in, layout))
        return self._blocks[-1]

    @property
    def blocks(self) -> int:
        """How many blocks of memory were made so far."""
        return len(self._blocks)

    def upload(self, planes: Mapping[str, Plane]) -> Lease:
        """Copy a frame into pinned memory, and have it copied to the device.

        Args:
            planes: By the names in the frame's layout, in either byte order.

        Raises:
            DeviceMemoryError: The device has no memory left.
            InferenceError: The device failed.
        """
        self._device.set_current()
        with self._uploading, cuda_errors("a frame could not be copied to the GPU"):
            if self._closed:
                raise InferenceError("the session was closed while a frame was given to it")
            block = self._unused_block()
            self.streams.host_writes_after_copy(block)
            for name, plane in planes.items():
                np.copyto(block.arrays[name], plane)
            self.streams.copy_in_after_reads(block)
            block.device.copy_from(block.pinned, stream=self.streams.copy_in)
            self.streams.copy_in.record(block.copied)
        lease = Lease(block)
        weakref.finalize(lease, self._unused.append, block).atexit = False
        return lease

    def _unused_block(self) -> Block:
        """Return the block whose turn it is: in a fixed rotation graphs serve again and again."""
        self._uploads += 1
        if self._unused:
            block = min(self._unused, key=lambda one: one.turn)
            self._unused.remove(block)
        else:
            block = self._block(self._frame)
        block.turn = self._uploads
        return block

    def start(self, window: Sequence[Block], fill: Callable[[Arrays], None]) -> Slot:
        """Have a frame computed and its result copied back; return at once.

        Args:
            window: Its frames, oldest first; input `frame.N.NAME` is tensor NAME of the N-th.
            fill: Writes the small inputs.

        Raises:
            InferenceError: The device failed.
        """
        self._device.set_current()
        key = tuple(int(block.device.handle) for block in window)
        with self._order:
            slot = next((one for one in self._slots if key in one.graphs), self._slots[0])
            self._slots.remove(slot)
        fill(slot.inputs.arrays)
        addresses = slot.inputs.addresses() | slot.outputs.addresses()
        for number, block in enumerate(window):
            addresses |= block.addresses(f"frame.{number}.")
        streams = self.streams
        with self._order, cuda_errors("a frame could not be computed"):
            slot.inputs.device.copy_from(slot.inputs.pinned, stream=streams.copy_in)
            streams.copy_in.record(slot.inputs.copied)
            streams.compute_after_copies(slot)
            streams.compute.record(slot.began)
            self._compute(slot, key, addresses)
            streams.compute.record(slot.computed)
            for block in window:
                streams.compute.record(block.read)
            streams.copy_out_after_compute(slot)
            slot.outputs.device.copy_to(slot.outputs.pinned, stream=streams.copy_out)
            streams.copy_out.record(slot.outputs.copied)
        return slot

    def _compute(self, slot: Slot, key: tuple[int, ...], addresses: Mapping[str, int]) -> None:
        """Enqueue the computation, replayed as a graph from the third time on with the same frames."""
        compute, graphs = self.streams.compute, slot.graphs
        if not self._program.capturable or key not in graphs:
            # The first time a runtime settles what it postponed, which no graph may hold.
            slot.context.enqueue(addresses, int(compute.handle))
            graphs[key] = None
            if len(graphs) > _GRAPHS_PER_SLOT:
                graphs.popitem(last=False)
            return
        graph = graphs[key]
        graphs.move_to_end(key)
        if graph is None:
            builder = compute.create_graph_builder().begin_building()
            try:
                slot.context.enqueue(addresses, int(builder.stream.handle))
            finally:
                builder.end_building()
            graph = graphs[key] = builder.complete()
        graph.launch(compute)

    def finished(self, slot: Slot, timeout_s: float | None = None) -> bool:
        """Wait for a result; return whether it is there, in the slot's outputs.

        Raises:
            InferenceError: The device failed.
        """
        self._device.set_current()
        with cuda_errors("a frame could not be computed"):
            return self.streams.host_reads_after_copy(slot.outputs.copied, timeout_s)

    def release(self, slot: Slot) -> None:
        """Use a slot again: its result is not read any more."""
        self._slots.append(slot)

    def close(self) -> None:
        """Wait for what is queued and free all memory. Idempotent."""
        with self._uploading:
            if self._closed:
                return
            self._closed = True
        self._device.set_current()
        self.streams.drain()
        with suppress(CUDAError):  # of a device that was lost there is nothing to free
            for block in self._blocks:
                block.close(self.streams.copy_in)
            if self._scratch is not None:
                self._scratch.close(self.streams.copy_in)
            self.streams.drain()
        self._blocks.clear()
        self._slots.clear()
        self._unused.clear()
        self.streams.close()
