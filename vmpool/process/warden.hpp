#pragma once

// Warden: a small process that a host daemon forks before it holds any secret. It is the parent of every guest, and
// it outlives the daemon: when the daemon ends in whatever way, the warden's socket closes, and it kills every guest
// with all descendants, removes their control groups, mounts and working directories, and exits. It runs in its own
// session and ignores SIGINT, SIGTERM, SIGHUP and SIGQUIT.
//
// Every process that a guest ever starts stays a descendant of the warden, which is a child subreaper; so nothing can
// get out of its sight by forking, by starting a session or by losing its parent. If the warden itself is killed, the
// kernel kills the guests' first processes (PR_SET_PDEATHSIG), and the daemon sees the socket close.
//
// The Warden object is the daemon's end: one thread, no call waits except start() and the destructor. start() forks, so
// it must be called while the process has one thread.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmpool/process/freezer.hpp"

namespace zz::vmpool {

inline constexpr std::size_t kWardenMessageMax = 64u << 10;
// How long it tries to get rid of processes before it gives up and says so.
inline constexpr int kWardenKillTimeoutMs = 60'000;

struct SpawnCommand {
  std::uint64_t number = 0;       // names the guest between daemon and warden; never reused
  std::vector<std::string> argv;  // argv[0]: absolute path of the program
  std::string work;               // working directory, exists; removed by Forget, with what is mounted in it
  std::string log;                // its output is appended here
  std::string join;               // Freezer::join_path()
};

// What the warden has to say.
struct WardenReport {
  enum class Kind : std::uint8_t {
    kHome,        // number: FreezerKind, text: directory. First of all, taken by start()
    kNoHome,      // text: why. The warden ends
    kSpawned,     // pid
    kNotSpawned,  // text: why
    kExited,      // text: how. Of a spawned guest, once
    kForgotten,   // no process and no file is left; text: what could not be removed
    kLost,        // the warden is gone
  };
  Kind kind = Kind::kLost;
  std::uint64_t number = 0;
  pid_t pid = 0;
  std::string text;
};

class Warden {
 public:
  struct Options {
    std::string name;                    // for open_freezer
    std::optional<FreezerKind> freezer;  // nothing: the best that works
    int keep_fd = -1;  // stays open in the warden as long as it lives (a lock that says guests may still run)
  };
  // The warden itself makes the freezers' home, so that it never stays behind.
  static Result<Warden> start(const Options& options);
  Warden(Warden&& other) noexcept;
  Warden& operator=(Warden&&) = delete;
  // Ends the warden and waits until it has finished its duty.
  ~Warden();

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const FreezerHome& home() const { return home_; }
  // Becomes readable when there is a report.
  [[nodiscard]] int socket() const { return socket_; }
  // `control_fd` becomes descriptor 3 of the guest; the caller keeps (and closes) its own.
  Result<void> spawn(const SpawnCommand& command, int control_fd);
  // Asks for a kForgotten. Requires that the guest's processes are dead as far as the caller can see.
  Result<void> forget(std::uint64_t number);
  // Nothing when there is none now; kLost again and again once the warden is gone.
  std::optional<WardenReport> next_report();

 private:
  Warden(int socket, pid_t pid) : socket_(socket), pid_(pid) {}
  Result<void> await_home();
  Result<void> send(const std::string& message, int fd) const;
  int socket_ = -1;
  pid_t pid_ = -1;
  FreezerHome home_;
};

// The warden's own life; never returns. `socket` is its end.
[[noreturn]] void run_warden(int socket, const Warden::Options& options);

// The messages, for both ends.
std::string encode_spawn(const SpawnCommand& command);
std::string encode_forget(std::uint64_t number);
std::string encode_report(const WardenReport& report);
struct WardenCommand {
  std::optional<SpawnCommand> spawn;
  std::uint64_t forget = 0;  // when there is no spawn
};
std::optional<WardenCommand> parse_command(const std::string& message);
std::optional<WardenReport> parse_report(const std::string& message);

}  // namespace zz::vmpool
