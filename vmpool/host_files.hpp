#pragma once

// The files of one host daemon in a cluster directory: the lock that says its guests may still run, the count of used
// incarnations, and the path of its control socket. No state besides the lock; any thread.

#include <string>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace zz::vmpool {

// How long a new daemon waits for the warden of the last one to finish.
inline constexpr int kLockTimeoutMs = 15'000;

std::string host_socket_path(const std::string& dir, HostId host);       // DIR/run/host-<id>.sock
std::string host_incarnation_path(const std::string& dir, HostId host);  // DIR/run/host-<id>.incarnation

// DIR/run/host-<id>.lock, held as long as any process has fd() open: by the daemon and, after its death, by its warden
// until no guest is left. So one incarnation of a slot never meets the next.
class HostLock {
 public:
  // Makes DIR/run if need be. Blocks while a former warden finishes; at once an error while another daemon serves.
  static Result<HostLock> take(const std::string& dir, HostId host);
  HostLock(HostLock&& other) noexcept;
  HostLock& operator=(HostLock&&) = delete;
  ~HostLock();
  [[nodiscard]] int fd() const { return fd_; }

 private:
  explicit HostLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

// The last used incarnation; 0 when there is no file yet.
Result<Incarnation> load_incarnation(const std::string& path);
// Returns once it is on disk: a crash leaves the old or the new value, never anything else.
Result<void> store_incarnation(const std::string& path, Incarnation used_up);

}  // namespace zz::vmpool
