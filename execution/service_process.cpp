#include "execution/service_process.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/assert.hpp"

namespace zz::execution {

namespace {

constexpr std::size_t kLogTailBytes = 4'096;
constexpr std::size_t kLogLineMax = 200;
constexpr int kDescendantsMax = 4'096;

std::string error_text(int number) { return std::strerror(number); }

Error cannot(const std::string& what, int number) { return Error{"cannot " + what + ": " + error_text(number)}; }

bool is_name_char(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

std::string describe_end(int status) {
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    return "was killed by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
  }
  return "exited with status " + std::to_string(WEXITSTATUS(status));
}

// Children of `pid`, their children, and so on, as far as the kernel tells.
std::vector<pid_t> descendants_of(pid_t pid) {
  std::vector<pid_t> out{pid};
  for (std::size_t i = 0; i < out.size() && out.size() < kDescendantsMax; ++i) {
    const std::string id = std::to_string(out[i]);
    std::ifstream children("/proc/" + id + "/task/" + id + "/children");
    for (pid_t child = 0; children >> child;) out.push_back(child);
  }
  out.erase(out.begin());
  return out;
}

// What the child needs, prepared before the fork: between fork and exec nothing may allocate.
struct Launch {
  std::vector<std::string> argv;
  std::vector<std::string> environment;
  std::vector<char*> argv_pointers;
  std::vector<char*> environment_pointers;
  const char* work_dir = nullptr;
  int log_fd = -1;
  int null_fd = -1;
  int report_fd = -1;
  pid_t parent = 0;
};

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& text : strings) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

Launch prepare(const ServiceCommand& command) {
  Launch launch;
  const std::string port = std::to_string(command.port);
  const std::string pid = command.of > 0 ? std::to_string(command.of) : std::string();
  for (const std::string& argument : command.argv)
    launch.argv.push_back(substitute(argument, port, command.state_dir, pid));
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (!text.starts_with("PORT=") && !text.starts_with("STATE=") && (pid.empty() || !text.starts_with("PID=")))
      launch.environment.emplace_back(text);
  }
  launch.environment.push_back("PORT=" + port);
  launch.environment.push_back("STATE=" + command.state_dir);
  if (!pid.empty()) launch.environment.push_back("PID=" + pid);
  launch.argv_pointers = pointers_to(launch.argv);
  launch.environment_pointers = pointers_to(launch.environment);
  launch.work_dir = command.work_dir.c_str();
  launch.parent = getpid();
  return launch;
}

// In the child; only async-signal-safe calls. Does not return.
[[noreturn]] void run_child(const Launch& launch) {
  const auto fail = [&launch] {
    const int number = errno;
    [[maybe_unused]] const ssize_t written = write(launch.report_fd, &number, sizeof number);
    _exit(127);
  };
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  if (getppid() != launch.parent) _exit(127);  // the parent was gone before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (chdir(launch.work_dir) != 0) fail();
  if (dup2(launch.null_fd, 0) < 0 || dup2(launch.log_fd, 1) < 0 || dup2(launch.log_fd, 2) < 0) fail();
  if (launch.report_fd != 3) {
    if (dup2(launch.report_fd, 3) < 0) fail();
  }
  fcntl(3, F_SETFD, FD_CLOEXEC);
  // Nothing of ours is the service's business: keys, channels, the control link.
  if (syscall(SYS_close_range, 4U, ~0U, 0U) != 0) {
    for (int fd = 4; fd < 4'096; ++fd) close(fd);
  }
  execvpe(launch.argv_pointers[0], launch.argv_pointers.data(), launch.environment_pointers.data());
  const int number = errno;
  [[maybe_unused]] const ssize_t written = write(3, &number, sizeof number);
  _exit(127);
}

struct Fd {
  int value = -1;
  Fd() = default;
  explicit Fd(int fd) : value(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (value >= 0) close(value);
  }
};

}  // namespace

// ---- port ------------------------------------------------------------------------------------------------------

Result<PortReservation> PortReservation::make() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return cannot("make a socket", errno);
  PortReservation out(fd, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    return cannot("find a free port on 127.0.0.1", errno);
  // After the bind: a port that another reservation holds must not be given to us as well.
  const int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) return cannot("set SO_REUSEADDR", errno);
  out.port_ = ntohs(address.sin_port);
  return out;
}

PortReservation::PortReservation(PortReservation&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), port_(other.port_) {}
PortReservation& PortReservation::operator=(PortReservation&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(port_, other.port_);
  return *this;
}
PortReservation::~PortReservation() { release(); }
void PortReservation::release() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

// ---- process ---------------------------------------------------------------------------------------------------

struct ServiceProcess::State {
  State(boost::asio::io_context& loop, Exited on_exit) : pidfd(loop), exited(std::move(on_exit)) {}

  void watch(const std::shared_ptr<State>& self) {
    pidfd.async_wait(boost::asio::posix::stream_descriptor::wait_read, [self](const boost::system::error_code& error) {
      if (error || !self->running) return;
      // Asio hands a descriptor that is new what an old one in its place had become ready for.
      if (!self->reap(WNOHANG)) return self->watch(self);
      // It may end the ServiceProcess, and with it itself.
      if (const Exited call = std::exchange(self->exited, nullptr)) call(self->why);
    });
  }

  // False: it has not ended yet, which only WNOHANG finds.
  bool reap(int flags) {
    int status = 0;
    pid_t got = -1;
    while ((got = waitpid(pid, &status, flags)) < 0 && errno == EINTR) {
    }
    if (got == 0) return false;
    running = false;
    good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    why = describe_end(status);
    // Closed by a successful exec; otherwise it brings the reason.
    int number = 0;
    was_run = read(report.value, &number, sizeof number) != sizeof number;
    if (!was_run) why = "cannot run \"" + program + "\": " + error_text(number);
    return true;
  }

  std::string program;
  pid_t pid = -1;
  bool running = false;
  bool good = false;
  bool was_run = true;
  Fd report;  // does not block
  std::string why;
  boost::asio::posix::stream_descriptor pidfd;
  Exited exited;
};

ServiceProcess::ServiceProcess(std::shared_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<ServiceProcess>> ServiceProcess::start(boost::asio::io_context& loop,
                                                              const ServiceCommand& command, Exited exited) {
  if (command.argv.empty() || command.argv[0].empty()) return Error{"the service has no command"};
  const int fresh = command.append_log ? 0 : O_TRUNC;
  const Fd log(open(command.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | fresh, 0600));
  if (log.value < 0) return cannot("write " + command.log_path, errno);
  const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (null.value < 0) return cannot("open /dev/null", errno);
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return cannot("make a pipe", errno);

  Launch launch = prepare(command);
  launch.log_fd = log.value;
  launch.null_fd = null.value;
  auto state = std::make_shared<State>(loop, std::move(exited));
  state->report.value = ends[0];
  state->program = launch.argv[0];
  {
    const Fd child_end(ends[1]);
    launch.report_fd = child_end.value;
    state->pid = fork();
    if (state->pid == 0) run_child(launch);
    if (state->pid < 0) return cannot("start " + launch.argv[0], errno);
  }
  state->running = true;
  std::unique_ptr<ServiceProcess> process(new ServiceProcess(state));
  const auto fd = static_cast<int>(syscall(SYS_pidfd_open, state->pid, 0));
  if (fd < 0) return cannot("watch the service's process (pidfd_open, Linux 5.3)", errno);
  state->pidfd.assign(fd);
  state->watch(state);
  return process;
}

void ServiceProcess::kill() {
  state_->exited = nullptr;
  if (!state_->running) return;
  const std::vector<pid_t> descendants = descendants_of(state_->pid);
  ::kill(state_->pid, SIGKILL);
  for (const pid_t pid : descendants) ::kill(pid, SIGKILL);
}

ServiceProcess::~ServiceProcess() {
  kill();
  if (state_->running) state_->reap(0);
  boost::system::error_code ignored;
  state_->pidfd.close(ignored);
}

bool ServiceProcess::running() const { return state_->running; }
bool ServiceProcess::succeeded() const { return !state_->running && state_->good; }
bool ServiceProcess::was_run() const { return state_->was_run; }
pid_t ServiceProcess::pid() const { return state_->pid; }

std::optional<std::set<ino_t>> ServiceProcess::shared_mappings() const {
  std::set<ino_t> out;
  if (!state_->running) return out;
  std::vector<pid_t> processes = descendants_of(state_->pid);
  processes.push_back(state_->pid);
  for (const pid_t pid : processes) {
    std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
    // "7f…-7f… rw-s 00000000 08:01 1234  /path"; one that has just ended has none.
    for (std::string line; std::getline(maps, line);) {
      std::istringstream words(line);
      std::string range, permissions, offset, device;
      ino_t inode = 0;
      words >> range >> permissions >> offset >> device >> inode;
      if (permissions.size() == 4 && permissions[3] == 's') out.insert(inode);
    }
    if (!maps.eof() && ::kill(pid, 0) == 0) return std::nullopt;
  }
  return out;
}

// ---- text ------------------------------------------------------------------------------------------------------

std::string substitute(const std::string& text, const std::string& port, const std::string& state,
                       const std::string& pid) {
  const std::array<std::pair<std::string_view, const std::string*>, 3> names = {
      {{"$PORT", &port}, {"$STATE", &state}, {"$PID", &pid}}};
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view rest = std::string_view(text).substr(i);
    const auto* found = std::find_if(names.begin(), names.end(), [&](const auto& name) {
      return !name.second->empty() && rest.starts_with(name.first) &&
             (rest.size() == name.first.size() || !is_name_char(rest[name.first.size()]));
    });
    if (found == names.end()) {
      out += text[i++];
    } else {
      out += *found->second;
      i += found->first.size();
    }
  }
  return out;
}

std::string last_line_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  const auto size = static_cast<std::size_t>(file.tellg());
  const std::size_t begin = size > kLogTailBytes ? size - kLogTailBytes : 0;
  std::string tail(size - begin, '\0');
  file.seekg(static_cast<std::streamoff>(begin));
  file.read(tail.data(), static_cast<std::streamsize>(tail.size()));
  while (!tail.empty() && static_cast<unsigned char>(tail.back()) <= ' ') tail.pop_back();
  const std::size_t newline = tail.rfind('\n');
  std::string line = newline == std::string::npos ? tail : tail.substr(newline + 1);
  if (line.size() > kLogLineMax) line = line.substr(0, kLogLineMax) + "…";
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
  }
  return line;
}

}  // namespace zz::execution
