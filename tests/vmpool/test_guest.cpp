// A guest for tests of the process backend: speaks the agent's side of agreement/agent_link.hpp on descriptor 3 and
// behaves as its arguments say. Every process of it appends its id to ./pids before it does anything else.
//
//   spin        burns CPU in two threads
//   family      has a child, a child in its own session, and a grandchild without parent; all of them burn CPU
//   bomb        forks without end, in its own sessions
//   headless    the first thread ends, another one burns CPU; does not end with its channel
//   mount       mounts a FUSE file system on ./state and one on "./a place", and answers neither; needs root
//   fail        reports that the service does not start
//   exit        ends before it is ready
//   mute        is never ready
//   garbage     sends nonsense once it has been told its identity
//   endless     sends a line without end once it has been told its identity
//   hang-up     closes the channel once it has been told its identity
//   end         ends once it has been told its identity
//   deaf        does not answer faults

#include <fcntl.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>

#include "agreement/agent_link.hpp"
#include "base/bytes.hpp"

namespace {

using zz::agreement::FromAgent;

constexpr int kControl = 3;

void note_pid() {
  const std::string line = std::to_string(::getpid()) + "\n";
  const int fd = ::open("pids", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0 || ::write(fd, line.data(), line.size()) < 0) std::abort();
  ::close(fd);
}

[[noreturn]] void spin() {
  for (;;) asm volatile("");
}

template <class Body>
void fork_off(Body body) {
  if (::fork() != 0) return;
  note_pid();
  body();
  ::_exit(0);
}

void family() {
  fork_off([] { spin(); });
  fork_off([] {
    ::setsid();
    ::signal(SIGTERM, SIG_IGN);
    ::signal(SIGHUP, SIG_IGN);
    spin();
  });
  fork_off([] {
    ::setsid();
    fork_off([] { spin(); });
  });
}

// Each generation forks the next and ends: no process lives long enough to be looked at twice.
[[noreturn]] void bomb() {
  ::signal(SIGCHLD, SIG_IGN);
  for (;;) {
    const pid_t child = ::fork();
    if (child > 0) ::_exit(0);
    if (child == 0) ::setsid();
  }
}

// The descriptors stay open, and the mounts alive with this process.
void mount_on(const char* place) {
  const int device = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  const std::string options = "fd=" + std::to_string(device) + ",rootmode=40000,user_id=0,group_id=0";
  if (device < 0 || ::mkdir(place, 0755) != 0) std::abort();
  if (::mount("zz test", place, "fuse.zz-test", MS_NOSUID | MS_NODEV, options.c_str()) != 0) std::abort();
}

void say(const FromAgent& event) {
  const std::string line = zz::agreement::encode(event) + "\n";
  if (::write(kControl, line.data(), line.size()) < 0) std::exit(1);
}

void on_identity(std::string_view behaviour, const zz::agreement::AgentIdentity& identity) {
  {
    std::ofstream out("identity.new");
    out << identity.service.value << ' ' << identity.slot.value << ' ' << identity.incarnation.value << ' '
        << identity.epoch.value << ' ' << zz::to_hex(identity.key_seed) << ' ' << zz::to_hex(identity.entropy) << '\n';
  }
  if (::rename("identity.new", "identity") != 0) std::abort();
  say({FromAgent::Kind::kDuty, {}, {.voted_us = 5, .whole_us = {}, .touched_bytes = 7}});
  if (behaviour == "garbage") (void)!::write(kControl, "{}\n", 3);
  if (behaviour == "endless") {
    const std::string line(2 * zz::agreement::kAgentLineMax, 'x');
    (void)!::write(kControl, line.data(), line.size());
  }
  if (behaviour == "hang-up") ::close(kControl);
  if (behaviour == "end") std::exit(0);
}

void on_line(std::string_view behaviour, std::string_view line) {
  const auto message = zz::agreement::parse_to_agent(line);
  if (!message) std::abort();
  if (message->identity) on_identity(behaviour, *message->identity);
  if (!message->fault.empty() && behaviour != "deaf") {
    std::ofstream("fault") << message->fault;
    say({FromAgent::Kind::kFaulted, {}});
  }
}

void serve(std::string_view behaviour) {
  std::string input;
  for (;;) {
    char buffer[512];
    const ssize_t size = ::read(kControl, buffer, sizeof buffer);
    if (size <= 0 && (behaviour == "hang-up" || behaviour == "headless")) ::pause();
    if (size <= 0) std::exit(0);
    input.append(buffer, static_cast<std::size_t>(size));
    for (std::size_t end = input.find('\n'); end != std::string::npos; end = input.find('\n')) {
      on_line(behaviour, std::string_view(input).substr(0, end));
      input.erase(0, end + 1);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view behaviour = argc > 1 ? argv[1] : "";
  note_pid();
  if (behaviour == "exit") return 3;
  if (behaviour == "fail") say({FromAgent::Kind::kFailed, "the service is out of order"});
  if (behaviour == "mute") ::pause();
  if (behaviour == "spin") {
    std::thread(spin).detach();
    std::thread(spin).detach();
  }
  if (behaviour == "mount") {
    mount_on("state");
    mount_on("a place");
  }
  if (behaviour == "family") family();
  if (behaviour == "bomb") fork_off([] { bomb(); });
  if (behaviour == "headless") {
    std::thread(spin).detach();
    std::thread([&] {
      say({FromAgent::Kind::kReady, {}});
      serve(behaviour);
    }).detach();
    ::pthread_exit(nullptr);
  }
  if (behaviour != "fail") say({FromAgent::Kind::kReady, {}});
  serve(behaviour);
}
