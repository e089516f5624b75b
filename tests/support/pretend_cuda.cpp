// A pretend CUDA driver for tests: streams are threads, device memory is host memory.
//
// Written against the documented driver API, as far as cuda-core uses it: devices, contexts, streams, events,
// pinned and device memory, asynchronous copies, host functions, and recorded graphs. The environment says
// what goes wrong:
//   PRETEND_CUDA_DEVICES=n        how many devices there are (2)
//   PRETEND_CUDA_CAPABILITY=89    their compute capability
//   PRETEND_CUDA_MEMORY=n         device memory in bytes (8 GiB)
//   PRETEND_CUDA_SLOW=k:us        the k-th stream sleeps so long before everything it does
//   PRETEND_CUDA_LOST_AFTER=n     the device is lost after n copies
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

typedef int Result;
typedef int Device;
typedef unsigned long long Address;
typedef std::function<void()> Operation;
#define API extern "C" __attribute__((visibility("default"))) Result

static const Result OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
                    NOT_READY = 600, LAUNCH_FAILED = 719, CAPTURE_INVALID = 901;

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

static std::atomic<long> copies{0}, launches{0}, waits{0}, device_bytes{0}, device_peak{0}, host_blocks{0};
static bool lost() {
  static const long after = setting("PRETEND_CUDA_LOST_AFTER", -1);
  return after >= 0 && copies > after;
}

// ---- streams and events

static std::atomic<int> streams_made{0};

struct Graph {
  std::vector<Operation> operations;
};

struct Stream {
  const int number = streams_made++;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Operation> queue;
  bool busy = false, ending = false;
  Graph *recording = nullptr;
  std::thread thread;

  Stream() : thread([this] { work(); }) {}
  ~Stream() {
    {
      std::lock_guard<std::mutex> hold(mutex);
      ending = true;
    }
    changed.notify_all();
    thread.join();
  }
  void work() {
    int slow_stream = -1, pause_us = 0;
    const char *slow = getenv("PRETEND_CUDA_SLOW");
    if (slow) sscanf(slow, "%d:%d", &slow_stream, &pause_us);
    std::unique_lock<std::mutex> hold(mutex);
    for (;;) {
      changed.wait(hold, [this] { return ending || !queue.empty(); });
      if (queue.empty()) return;
      Operation operation = std::move(queue.front());
      queue.pop_front();
      busy = true;
      hold.unlock();
      if (number == slow_stream) usleep(pause_us);
      operation();
      operation = nullptr;
      hold.lock();
      busy = false;
      changed.notify_all();
    }
  }
  void push(Operation operation) {
    if (recording) {
      recording->operations.push_back(std::move(operation));
      return;
    }
    std::lock_guard<std::mutex> hold(mutex);
    queue.push_back(std::move(operation));
    changed.notify_all();
  }
  void drain() {
    std::unique_lock<std::mutex> hold(mutex);
    changed.wait(hold, [this] { return queue.empty() && !busy; });
  }
  bool idle() {
    std::lock_guard<std::mutex> hold(mutex);
    return queue.empty() && !busy;
  }
};

struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  long recorded = 0, done = 0;
  std::chrono::steady_clock::time_point at;

  void finish(long number) {
    {
      std::lock_guard<std::mutex> hold(mutex);
      if (number > done) done = number, at = std::chrono::steady_clock::now();
    }
    changed.notify_all();
  }
  void wait(long number) {
    std::unique_lock<std::mutex> hold(mutex);
    changed.wait(hold, [&] { return done >= number; });
  }
  long latest() {
    std::lock_guard<std::mutex> hold(mutex);
    return recorded;
  }
};

static Stream *stream_of(void *handle) {
  static Stream *legacy = new Stream;
  return (Address)handle <= 2 ? legacy : (Stream *)handle;
}

// ---- memory

static std::mutex memory_mutex;
static std::map<Address, std::pair<size_t, int>> memory;  // address: size, and 1 for host or 2 for device
static const int HOST = 1, DEVICE = 2;

static Result allocate(Address *address, size_t size, int kind) {
  long limit = setting("PRETEND_CUDA_MEMORY", 1L << 33);
  if (kind == DEVICE && device_bytes + (long)size > limit) return OUT_OF_MEMORY;
  void *found = nullptr;
  if (posix_memalign(&found, 512, size ? size : 1)) return OUT_OF_MEMORY;
  memset(found, 0xCD, size);
  std::lock_guard<std::mutex> hold(memory_mutex);
  memory[(Address)found] = {size, kind};
  if (kind == DEVICE) {
    device_bytes += size;
    if (device_bytes > device_peak) device_peak = device_bytes.load();
  } else {
    host_blocks++;
  }
  *address = (Address)found;
  return OK;
}

static Result release(Address address) {
  std::lock_guard<std::mutex> hold(memory_mutex);
  auto found = memory.find(address);
  if (found == memory.end()) return INVALID_VALUE;
  if (found->second.second == DEVICE) device_bytes -= found->second.first;
  else host_blocks--;
  memset((void *)address, 0xDD, found->second.first);
  memory.erase(found);
  free((void *)address);
  return OK;
}

static bool find(Address address, Address *base, int *kind) {
  std::lock_guard<std::mutex> hold(memory_mutex);
  auto found = memory.upper_bound(address);
  if (found == memory.begin()) return false;
  --found;
  if (address >= found->first + found->second.first) return false;
  *base = found->first, *kind = found->second.second;
  return true;
}

// ---- devices and contexts

static int contexts[16], pool;
static thread_local void *current = nullptr;
static int devices() { return (int)setting("PRETEND_CUDA_DEVICES", 2); }
static Device device_of(void *context) { return context ? (Device)((int *)context - contexts) : 0; }

API cuInit(unsigned) { return devices() ? OK : 100; }
API cuDriverGetVersion(int *version) { return *version = 13000, OK; }
API cuDeviceGetCount(int *count) { return *count = devices(), OK; }
API cuDeviceGet(Device *device, int number) {
  return number < devices() ? (*device = number, OK) : INVALID_DEVICE;
}
API cuDeviceGetName(char *name, int size, Device device) {
  return snprintf(name, size, "Pretend GPU %d", device), OK;
}
API cuDeviceGetUuid_v2(void *uuid, Device device) { return memset(uuid, 7 + device, 16), OK; }
API cuDeviceTotalMem_v2(size_t *size, Device) { return *size = setting("PRETEND_CUDA_MEMORY", 1L << 33), OK; }
API cuMemGetInfo_v2(size_t *free_size, size_t *total) {
  *total = setting("PRETEND_CUDA_MEMORY", 1L << 33), *free_size = *total - device_bytes;
  return OK;
}
API cuDeviceGetAttribute(int *value, int attribute, Device) {
  long capability = setting("PRETEND_CUDA_CAPABILITY", 89);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 1;
  return OK;
}
API cuDeviceGetPCIBusId(char *id, int size, Device device) {
  return snprintf(id, size, "0000:0%d:00.0", device), OK;
}
API cuDevicePrimaryCtxRetain(void **context, Device device) { return *context = &contexts[device], OK; }
API cuDevicePrimaryCtxRelease_v2(Device) { return OK; }
API cuDevicePrimaryCtxGetState(Device, unsigned *flags, int *active) { return *flags = 0, *active = 1, OK; }
API cuCtxSetCurrent(void *context) { return current = context, OK; }
API cuCtxGetCurrent(void **context) { return *context = current, OK; }
API cuCtxPushCurrent_v2(void *context) { return current = context, OK; }
API cuCtxPopCurrent_v2(void **context) {
  if (context) *context = current;
  return current = nullptr, OK;
}
API cuCtxGetDevice(Device *device) { return *device = device_of(current), current ? OK : INVALID_CONTEXT; }
API cuCtxGetDevice_v2(Device *device, void *context) { return *device = device_of(context), OK; }
API cuCtxGetId(void *context, Address *id) { return *id = 1 + device_of(context), OK; }
API cuCtxSynchronize() { return OK; }
API cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, OK; }

API cuStreamCreate(void **stream, unsigned) { return *stream = new Stream, OK; }
API cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy_v2(void *stream) {
  if ((Address)stream > 2) {
    stream_of(stream)->drain();
    delete (Stream *)stream;
  }
  return OK;
}
API cuStreamSynchronize(void *stream) { return stream_of(stream)->drain(), lost() ? LAUNCH_FAILED : OK; }
API cuStreamQuery(void *stream) { return lost() ? LAUNCH_FAILED : stream_of(stream)->idle() ? OK : NOT_READY; }
API cuStreamGetCtx(void *, void **context) { return *context = current ? current : &contexts[0], OK; }
API cuStreamGetCtx_v2(void *stream, void **context, void **green) {
  if (green) *green = nullptr;
  return cuStreamGetCtx(stream, context);
}
API cuStreamGetDevice(void *, Device *device) { return *device = device_of(current), OK; }
API cuStreamGetPriority(void *, int *priority) { return *priority = 0, OK; }
API cuStreamGetFlags(void *, unsigned *flags) { return *flags = 1, OK; }
API cuStreamGetId(void *stream, Address *id) { return *id = (Address)stream, OK; }

API cuEventCreate(void **event, unsigned) { return *event = new Event, OK; }
API cuEventDestroy_v2(void *) { return OK; }  // kept: a stream may still hold it
API cuEventRecord(void *handle, void *stream) {
  if (lost()) return LAUNCH_FAILED;
  Event *event = (Event *)handle;
  long number;
  {
    std::lock_guard<std::mutex> hold(event->mutex);
    number = ++event->recorded;
  }
  stream_of(stream)->push([event, number] { event->finish(number); });
  return OK;
}
API cuEventRecordWithFlags(void *event, void *stream, unsigned) { return cuEventRecord(event, stream); }
API cuEventSynchronize(void *handle) {
  Event *event = (Event *)handle;
  event->wait(event->latest());
  return lost() ? LAUNCH_FAILED : OK;
}
API cuEventQuery(void *handle) {
  Event *event = (Event *)handle;
  if (lost()) return LAUNCH_FAILED;
  std::lock_guard<std::mutex> hold(event->mutex);
  return event->done >= event->recorded ? OK : NOT_READY;
}
API cuEventElapsedTime(float *milliseconds, void *from, void *to) {
  std::chrono::duration<float, std::milli> took = ((Event *)to)->at - ((Event *)from)->at;
  return *milliseconds = took.count(), OK;
}
API cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
  return cuEventElapsedTime(milliseconds, from, to);
}
API cuStreamWaitEvent(void *stream, void *handle, unsigned) {
  Event *event = (Event *)handle;
  long number = event->latest();
  waits++;
  stream_of(stream)->push([event, number] { event->wait(number); });
  return OK;
}

// ---- memory, as seen from outside

API cuMemAllocHost_v2(void **address, size_t size) { return allocate((Address *)address, size, HOST); }
API cuMemHostAlloc(void **address, size_t size, unsigned) { return cuMemAllocHost_v2(address, size); }
API cuMemFreeHost(void *address) { return release((Address)address); }
API cuMemAlloc_v2(Address *address, size_t size) { return allocate(address, size, DEVICE); }
API cuMemFree_v2(Address address) { return release(address); }
API cuMemAllocAsync(Address *address, size_t size, void *) { return allocate(address, size, DEVICE); }
API cuMemAllocFromPoolAsync(Address *address, size_t size, void *, void *) {
  return lost() ? LAUNCH_FAILED : allocate(address, size, DEVICE);
}
API cuMemFreeAsync(Address address, void *stream) { return stream_of(stream)->drain(), release(address); }
API cuDeviceGetDefaultMemPool(void **found, Device) { return *found = &pool, OK; }
API cuDeviceGetMemPool(void **found, Device) { return *found = &pool, OK; }
API cuDeviceSetMemPool(Device, void *) { return OK; }
API cuMemPoolSetAttribute(void *, int, void *) { return OK; }
API cuMemPoolGetAttribute(void *, int, void *value) { return memset(value, 0, 8), OK; }
API cuMemPoolCreate(void **found, const void *) { return *found = &pool, OK; }
API cuMemPoolDestroy(void *) { return OK; }
API cuMemcpyAsync(Address to, Address from, size_t size, void *stream) {
  copies++;
  if (lost()) return LAUNCH_FAILED;
  stream_of(stream)->push([=] { memcpy((void *)to, (void *)from, size); });
  return OK;
}
API cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, void *stream) {
  return cuMemcpyAsync(to, (Address)from, size, stream);
}
API cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, void *stream) {
  return cuMemcpyAsync((Address)to, from, size, stream);
}
API cuMemcpy(Address to, Address from, size_t size) { return memcpy((void *)to, (void *)from, size), OK; }
API cuMemsetD8Async(Address to, unsigned char value, size_t size, void *stream) {
  stream_of(stream)->push([=] { memset((void *)to, value, size); });
  return OK;
}
static void describe(int attribute, void *value, Address address) {
  Address base = 0;
  int kind = 0;
  bool known = find(address, &base, &kind);
  switch (attribute) {
    case 1: *(void **)value = known ? &contexts[0] : nullptr; break;
    case 2: *(unsigned *)value = kind; break;
    case 8: *(unsigned *)value = 0; break;
    case 9: *(int *)value = known ? 0 : -2; break;
    default: memset(value, 0, 4);
  }
}
API cuPointerGetAttribute(void *value, int attribute, Address address) {
  return describe(attribute, value, address), OK;
}
API cuPointerGetAttributes(unsigned count, int *attributes, void **values, Address address) {
  for (unsigned i = 0; i < count; i++) describe(attributes[i], values[i], address);
  return OK;
}

// ---- work and graphs

API cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
  launches++;
  if (lost()) return LAUNCH_FAILED;
  stream_of(stream)->push([=] { function(data); });
  return OK;
}
API cuLaunchHostFunc_v2(void *stream, void (*function)(void *), void *data, unsigned) {
  return cuLaunchHostFunc(stream, function, data);
}
API cuStreamIsCapturing(void *stream, int *state) {
  return *state = (Address)stream > 2 && stream_of(stream)->recording ? 1 : 0, OK;
}
API cuStreamGetCaptureInfo_v3(void *stream, int *state, Address *id, void **graph, void **nodes, void **edges,
                              size_t *count) {
  Graph *recording = (Address)stream > 2 ? stream_of(stream)->recording : nullptr;
  *state = recording ? 1 : 0;
  if (id) *id = recording ? 1 : 0;
  if (graph) *graph = recording;
  if (nodes) *nodes = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return OK;
}
API cuStreamGetCaptureInfo_v2(void *stream, int *state, Address *id, void **graph, void **nodes, size_t *count) {
  return cuStreamGetCaptureInfo_v3(stream, state, id, graph, nodes, nullptr, count);
}
API cuStreamBeginCapture_v2(void *stream, int) {
  if ((Address)stream <= 2) return CAPTURE_INVALID;
  return stream_of(stream)->recording = new Graph, OK;
}
API cuStreamEndCapture(void *stream, void **graph) {
  *graph = stream_of(stream)->recording;
  stream_of(stream)->recording = nullptr;
  return *graph ? OK : CAPTURE_INVALID;
}
API cuGraphInstantiateWithFlags(void **made, void *graph, Address) {
  return *made = new Graph(*(Graph *)graph), OK;
}
API cuGraphInstantiateWithParams(void **made, void *graph, void *parameters) {
  if (parameters) *(int *)((char *)parameters + 24) = 0;
  return cuGraphInstantiateWithFlags(made, graph, 0);
}
API cuGraphLaunch(void *graph, void *stream) {
  launches++;
  if (lost()) return LAUNCH_FAILED;
  for (auto &operation : ((Graph *)graph)->operations) stream_of(stream)->push(operation);
  return OK;
}
API cuGraphUpload(void *, void *) { return OK; }
API cuGraphExecDestroy(void *) { return OK; }
API cuGraphDestroy(void *) { return OK; }
API cuGraphGetNodes(void *, void **, size_t *count) { return *count = 0, OK; }
API cuGraphGetId(void *, unsigned *id) { return *id = 1, OK; }
API cuGraphExecGetId(void *, unsigned *id) { return *id = 1, OK; }
API cuGraphExecGetFlags(void *, Address *flags) { return *flags = 0, OK; }
API cuUserObjectCreate(void **object, void *, void (*)(void *), unsigned, unsigned) { return *object = &pool, OK; }
API cuUserObjectRelease(void *, unsigned) { return OK; }
API cuUserObjectRetain(void *, unsigned) { return OK; }
API cuGraphRetainUserObject(void *, void *, unsigned, unsigned) { return OK; }
API cuGraphReleaseUserObject(void *, void *, unsigned) { return OK; }
API cuThreadExchangeStreamCaptureMode(int *) { return OK; }

API cuGetErrorName(Result result, const char **name) {
  *name = result == OUT_OF_MEMORY    ? "CUDA_ERROR_OUT_OF_MEMORY"
          : result == LAUNCH_FAILED  ? "CUDA_ERROR_LAUNCH_FAILED"
          : result == INVALID_DEVICE ? "CUDA_ERROR_INVALID_DEVICE"
                                     : "CUDA_ERROR_UNKNOWN";
  return OK;
}
API cuGetErrorString(Result result, const char **text) { return cuGetErrorName(result, text); }

// What happened so far, for tests: copies, launches, waits, bytes on devices now and at most, pinned blocks.
extern "C" __attribute__((visibility("default"))) long pretend_count(int which) {
  const std::atomic<long> *counts[] = {&copies, &launches, &waits, &device_bytes, &device_peak, &host_blocks};
  return *counts[which];
}

API cuGetProcAddress_v2(const char *name, void **found, int, Address, int *status) {
  static void *self = nullptr;
  if (!self) {
    Dl_info info;
    dladdr((void *)&cuInit, &info);
    self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  }
  *found = nullptr;
  for (const char *suffix : {"_v3", "_v2", ""})
    if ((*found = dlsym(self, (std::string(name) + suffix).c_str()))) break;
  if (status) *status = *found ? 0 : 1;
  return OK;
}
API cuGetProcAddress(const char *name, void **found, int version, Address flags) {
  return cuGetProcAddress_v2(name, found, version, flags, nullptr);
}
