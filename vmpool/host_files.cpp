#include "vmpool/host_files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

namespace zz::vmpool {
namespace {

Error failed(const std::string& path, std::string_view doing) {
  return Error{path + ": cannot " + std::string(doing) + ": " + std::strerror(errno)};
}

std::string file_of(const std::string& dir, HostId host, std::string_view suffix) {
  return dir + "/run/host-" + std::to_string(host.value) + std::string(suffix);
}

bool somebody_listens(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  const bool answered = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return answered;
}

class File {
 public:
  File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

std::string host_socket_path(const std::string& dir, HostId host) { return file_of(dir, host, ".sock"); }

std::string host_incarnation_path(const std::string& dir, HostId host) { return file_of(dir, host, ".incarnation"); }

Result<HostLock> HostLock::take(const std::string& dir, HostId host) {
  std::error_code error;
  std::filesystem::create_directories(dir + "/run", error);
  const std::string path = file_of(dir, host, ".lock");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return failed(path, "open");
  HostLock lock(fd);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kLockTimeoutMs);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return failed(path, "lock");
    if (somebody_listens(host_socket_path(dir, host)))
      return Error{path + ": host " + std::to_string(host.value) + " is already running"};
    if (std::chrono::steady_clock::now() >= deadline)
      return Error{path + ": guests of an earlier host daemon are still being removed; try again later"};
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return lock;
}

HostLock::HostLock(HostLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

HostLock::~HostLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Incarnation> load_incarnation(const std::string& path) {
  const File file(path, O_RDONLY);
  if (file.fd() < 0) {
    if (errno == ENOENT) return Incarnation{};
    return failed(path, "open");
  }
  std::array<char, 32> text{};
  const ssize_t size = ::read(file.fd(), text.data(), text.size());
  if (size < 0) return failed(path, "read");
  Incarnation out;
  const char* end = text.data() + size;
  const auto [rest, error] = std::from_chars(text.data(), end, out.value);
  if (error != std::errc() || rest + 1 != end || *rest != '\n')
    return Error{path + ": is not a number on a line; remove it to begin from what the cluster knows"};
  return out;
}

Result<void> store_incarnation(const std::string& path, Incarnation used_up) {
  const std::string fresh = path + ".new";
  const std::string text = std::to_string(used_up.value) + "\n";
  {
    const File file(fresh, O_WRONLY | O_CREAT | O_TRUNC);
    if (file.fd() < 0) return failed(fresh, "open");
    if (::write(file.fd(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      return failed(fresh, "write");
    if (::fsync(file.fd()) != 0) return failed(fresh, "sync");
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) return failed(path, "replace");
  const File directory(std::filesystem::path(path).parent_path().string(), O_RDONLY | O_DIRECTORY);
  if (directory.fd() < 0 || ::fsync(directory.fd()) != 0) return failed(path, "sync the directory of");
  return {};
}

}  // namespace zz::vmpool
