#include "execution/statefs/fuse_mount.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "execution/statefs/fuse_operations.hpp"

namespace zz::execution::statefs {

namespace {

using Clock = std::chrono::steady_clock;

// A process that has the kernel send what shared mappings of the mount hold. Not a thread: were this process killed
// while one of its threads waits for its own answer, that thread could not end, nor /dev/fuse be closed, nor the wait
// end.
class SyncHelper {
 public:
  SyncHelper() = default;
  SyncHelper(const SyncHelper&) = delete;
  SyncHelper& operator=(const SyncHelper&) = delete;
  ~SyncHelper() { stop(); }

  Result<void> start(const std::string& path) {
    int ask[2];
    int answer[2];
    if (::pipe2(ask, O_CLOEXEC) != 0) return Error{fmt::format("state file system: pipe: {}", std::strerror(errno))};
    if (::pipe2(answer, O_CLOEXEC) != 0) {
      const int error = errno;
      ::close(ask[0]);
      ::close(ask[1]);
      return Error{fmt::format("state file system: pipe: {}", std::strerror(error))};
    }
    process_ = ::fork();
    if (process_ == 0) serve(path.c_str(), ask[0], answer[1]);
    ask_ = ask[1];
    answer_ = answer[0];
    ::close(ask[0]);
    ::close(answer[1]);
    if (process_ < 0) return Error{fmt::format("state file system: fork: {}", std::strerror(errno))};
    return {};
  }
  void stop() {
    if (ask_ >= 0) ::close(std::exchange(ask_, -1));
    if (process_ > 0) ::waitpid(std::exchange(process_, -1), nullptr, 0);
    if (answer_ >= 0) ::close(std::exchange(answer_, -1));
  }
  // Zero or an errno. One thread at a time.
  int run() {
    const std::lock_guard lock(mutex_);
    const char go = 0;
    int error = EPIPE;
    if (::write(ask_, &go, 1) != 1) return EPIPE;
    ssize_t size = 0;
    do {
      size = ::read(answer_, &error, sizeof error);
    } while (size < 0 && errno == EINTR);
    return size == sizeof error ? error : EPIPE;
  }

 private:
  // Between fork and exit of a process with threads: system calls alone.
  [[noreturn]] static void serve(const char* path, int ask, int answer) {
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGTERM, SIG_IGN);
    ask = ::fcntl(ask, F_DUPFD, 1'000);  // out of the way of what follows
    answer = ::fcntl(answer, F_DUPFD, 1'000);
    ::dup2(ask, 3);
    ::dup2(answer, 4);
    ::close_range(5, ~0u, 0);  // /dev/fuse, above all
    int root = -1;
    char go = 0;
    while (::read(3, &go, 1) == 1) {
      if (root < 0) root = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      // Nothing waits for what is sent, but the request after it comes behind all of it.
      struct statfs ignored {};
      const bool good = root >= 0 && ::syncfs(root) == 0 && ::fstatfs(root, &ignored) == 0;
      const int error = good ? 0 : errno;
      if (::write(4, &error, sizeof error) != sizeof error) break;
    }
    ::_exit(0);
  }

  std::mutex mutex_;
  pid_t process_ = -1;
  int ask_ = -1;
  int answer_ = -1;
};

}  // namespace

struct FuseMount::State {
  struct Waiting {
    fuse_req_t request;
    std::function<void()> retry;
  };

  State(FileSystem& files, std::mutex& guard, OnMissing missing)
      : head(guard), on_missing(std::move(missing)), served{files, {}, 0, 0} {
    served.park = [this](fuse_req_t request, std::function<void()> retry, const std::vector<Want>& wants) {
      if (waiting.empty()) waits_since = Clock::now();
      waiting.push_back({request, std::move(retry)});
      wanted.insert(wanted.end(), wants.begin(), wants.end());
      ++parked;
    };
  }

  void run();
  // What waits is taken out, to be tried again or ended.
  std::vector<Waiting> take_waiting() {
    if (!waiting.empty()) waited += Clock::now() - waits_since;
    return std::exchange(waiting, {});
  }
  // With `head` held; lets it go to say what is missing.
  void tell(std::unique_lock<std::mutex>& lock) {
    const std::vector<Want> wants = std::exchange(wanted, {});
    lock.unlock();
    if (!wants.empty() && on_missing) on_missing(wants);
  }

  std::mutex& head;
  OnMissing on_missing;
  std::string path;
  fuse_session* session = nullptr;
  bool is_mounted = false;
  SyncHelper sync;
  std::thread thread;
  // Under `head`:
  Served served;
  std::vector<Waiting> waiting;
  Clock::time_point waits_since;  // while there is one
  Clock::duration waited{0};      // before that
  std::vector<Want> wanted;       // by those that began to wait
  std::uint64_t parked = 0;
  std::uint64_t requests = 0;
  bool is_ending = false;
  int settling = 0;
  std::condition_variable changed;
};

void FuseMount::State::run() {
  fuse_buf buffer{};
  while (fuse_session_exited(session) == 0) {
    const int size = fuse_session_receive_buf(session, &buffer);
    if (size == -EINTR || size == -EAGAIN) continue;
    if (size <= 0) break;  // unmounted
    std::unique_lock lock(head);
    ++requests;
    fuse_session_process_buf(session, &buffer);
    if (!wanted.empty()) tell(lock);
  }
  std::free(buffer.mem);
}

namespace {

// A process that was killed leaves a directory that answers nothing but "not connected".
void take_off_dead_mounts(const std::string& path) {
  struct statfs ignored {};
  for (int i = 0; i < 16 && ::statfs(path.c_str(), &ignored) != 0 && errno == ENOTCONN; ++i) {
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) return;
  }
}

}  // namespace

Result<std::unique_ptr<FuseMount>> FuseMount::mount(FileSystem& files, std::mutex& head, const MountOptions& options,
                                                    OnMissing on_missing) {
  const int device = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) return Error{fmt::format("state file system: /dev/fuse: {}", std::strerror(errno))};
  ::close(device);
  take_off_dead_mounts(options.path);

  auto state = std::make_unique<State>(files, head, std::move(on_missing));
  state->path = options.path;
  std::string settings = "default_permissions,noatime,fsname=zz-state,subtype=zz";
  if (options.allow_other) settings += ",allow_other";
  const char* arguments[] = {"zz", "-o", settings.c_str(), nullptr};
  fuse_args parsed = FUSE_ARGS_INIT(3, const_cast<char**>(arguments));
  const fuse_lowlevel_ops& operations = fuse_operations();
  state->session = fuse_session_new(&parsed, &operations, sizeof operations, &state->served);
  fuse_opt_free_args(&parsed);
  if (state->session == nullptr) return Error{"state file system: libfuse takes no such options"};
  auto mount = std::unique_ptr<FuseMount>(new FuseMount(std::move(state)));
  State& mounted = *mount->state_;
  if (Result<void> started = mounted.sync.start(options.path); !started) return Error{started.error()};
  if (fuse_session_mount(mounted.session, options.path.c_str()) != 0) {
    return Error{fmt::format("state file system: cannot mount on {}: {}", options.path, std::strerror(errno))};
  }
  mounted.is_mounted = true;
  mounted.thread = std::thread([&mounted] { mounted.run(); });
  return mount;
}

FuseMount::FuseMount(std::unique_ptr<State> state) : state_(std::move(state)) {}

FuseMount::~FuseMount() {
  unmount();
  State& state = *state_;
  state.sync.stop();
  fuse_session_unmount(state.session);
  fuse_session_destroy(state.session);
}

void FuseMount::unmount() {
  State& state = *state_;
  if (!std::exchange(state.is_mounted, false)) return;
  fuse_session_exit(state.session);
  // Forced: whoever has files open or waits for an answer gets an error now, and the thread is woken.
  ::umount2(state.path.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
  state.thread.join();
  std::unique_lock lock(state.head);
  state.is_ending = true;
  for (const State::Waiting& waiting : state.take_waiting()) fuse_reply_err(waiting.request, ENOTCONN);
  state.changed.notify_all();
  state.changed.wait(lock, [&] { return state.settling == 0; });
}

void FuseMount::supplied() {
  State& state = *state_;
  std::unique_lock lock(state.head);
  for (const State::Waiting& waiting : state.take_waiting()) waiting.retry();
  if (state.waiting.empty()) state.changed.notify_all();
  state.tell(lock);
}

bool FuseMount::is_settled() const {
  const std::lock_guard lock(state_->head);
  return state_->served.open_for_writing == 0 && state_->waiting.empty() && !state_->is_ending;
}

Result<void> FuseMount::settle() {
  State& state = *state_;
  std::unique_lock lock(state.head);
  if (state.is_ending) return Error{fmt::format("state file system: {} was unmounted", state.path)};
  if (state.served.open_for_writing == 0 && state.waiting.empty()) return {};
  ++state.settling;
  lock.unlock();
  const int error = state.sync.run();
  lock.lock();
  if (error == 0) state.changed.wait(lock, [&] { return state.waiting.empty() || state.is_ending; });
  const bool is_gone = state.is_ending;
  --state.settling;
  state.changed.notify_all();
  if (is_gone) return Error{fmt::format("state file system: {} was unmounted", state.path)};
  if (error != 0) return Error{fmt::format("state file system: {}: {}", state.path, std::strerror(error))};
  return {};
}

MountCounters FuseMount::counters() const {
  const State& state = *state_;
  const std::lock_guard lock(state.head);
  const Clock::duration waited =
      state.waited + (state.waiting.empty() ? Clock::duration{0} : Clock::now() - state.waits_since);
  return {state.requests, state.parked, state.waiting.size(), state.served.written_back,
          std::chrono::duration_cast<std::chrono::microseconds>(waited)};
}

}  // namespace zz::execution::statefs
