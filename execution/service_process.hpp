#pragma once

// ServiceProcess: the operating system's side of a web service in a slot: its port, its process, its log.
//
// The process stays in the caller's process group (a slot is frozen and killed as one group) and dies with the thread
// that started it. Everything runs on the io_context's thread.

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace zz::execution {

// A free port on 127.0.0.1. While it is held nobody gets the port by chance, and a server that sets SO_REUSEADDR, as
// nearly all do, can listen on it.
class PortReservation {
 public:
  static Result<PortReservation> make();
  PortReservation(PortReservation&& other) noexcept;
  PortReservation& operator=(PortReservation&& other) noexcept;
  ~PortReservation();

  [[nodiscard]] std::uint16_t port() const { return port_; }
  // For servers that do not set SO_REUSEADDR. port() stays.
  void release();

 private:
  PortReservation(int fd, std::uint16_t port) : fd_(fd), port_(port) {}
  int fd_ = -1;
  std::uint16_t port_ = 0;
};

struct ServiceCommand {
  std::vector<std::string>
      argv;                 // $PORT, $STATE and, if there is one, $PID are replaced in every argument and exported
  std::string work_dir;     // becomes the working directory
  std::string state_dir;    // $STATE
  std::string log_path;     // standard output and error
  bool append_log = false;  // else it begins anew
  std::uint16_t port = 0;   // $PORT
  pid_t of = -1;            // $PID: the process that a reload is of; -1: none
};

class ServiceProcess {
 public:
  // `why` says how the process ended, fit for people ("exited with status 1", "was killed by signal 11 (…)"). A program
  // that cannot be run ends too: "cannot run \"…\": No such file or directory".
  using Exited = std::function<void(const std::string& why)>;

  // Does not wait for the program to be loaded: it may stand in a state that is to be fetched. `exited` is called once,
  // later, unless the object is gone by then.
  static Result<std::unique_ptr<ServiceProcess>> start(boost::asio::io_context& loop, const ServiceCommand& command,
                                                       Exited exited);
  ServiceProcess(const ServiceProcess&) = delete;
  ServiceProcess& operator=(const ServiceProcess&) = delete;
  // Kills the process and its descendants and reaps it, however long it takes to die.
  ~ServiceProcess();

  // Has it and its descendants die, without waiting. `exited` is not called any more.
  void kill();
  [[nodiscard]] bool running() const;
  [[nodiscard]] bool succeeded() const;  // it ended with status 0
  [[nodiscard]] bool was_run() const;    // false once it is known that the program could not be
  [[nodiscard]] pid_t pid() const;
  // The inode numbers of all files that the process and its descendants map as shared; nothing: not to be found out.
  [[nodiscard]] std::optional<std::set<ino_t>> shared_mappings() const;

 private:
  struct State;
  explicit ServiceProcess(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// `text` with $PORT and $STATE (not followed by a letter, digit or underscore) replaced, and $PID if there is one.
[[nodiscard]] std::string substitute(const std::string& text, const std::string& port, const std::string& state,
                                     const std::string& pid = {});

// The last line that is not blank, at most 200 printable characters; empty if there is none.
[[nodiscard]] std::string last_line_of(const std::string& path);

}  // namespace zz::execution
