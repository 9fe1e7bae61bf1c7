#pragma once

// A directory, a loop and a ProcessBackend whose guests are the test guest (test_guest.cpp), for one kind of freezer.

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/run_until.hpp"
#include "vmpool/process/process_backend.hpp"
#include "vmpool/process/process_table.hpp"

namespace zz::vmpool {

inline GuestId guest_id(std::uint64_t incarnation, std::uint16_t slot = 0) {
  return {ServiceId{0}, SlotId{slot}, Incarnation{incarnation}};
}

inline std::string read_file(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A fresh directory, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "zz-vmpool-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The loop turns at least every few milliseconds, so that conditions of the outside world are looked at again.
class Heartbeat {
 public:
  explicit Heartbeat(boost::asio::io_context& loop) : timer_(loop) { beat(); }

 private:
  void beat() {
    timer_.expires_after(std::chrono::milliseconds(2));
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (!error) beat();
    });
  }
  boost::asio::steady_timer timer_;
};

// Ids that processes of a guest wrote down, and who they are now.
inline std::vector<ProcessInfo> noted_processes(const std::string& work) {
  std::vector<ProcessInfo> out;
  std::ifstream in(work + "/pids");
  for (pid_t pid = 0; in >> pid;) {
    if (const auto process = read_process(pid)) out.push_back(*process);
  }
  return out;
}

inline bool all_gone(const std::vector<ProcessInfo>& processes) {
  for (const ProcessInfo& process : processes) {
    if (!is_gone(process)) return false;
  }
  return true;
}

class ProcessWorld {
 public:
  explicit ProcessWorld(std::optional<FreezerKind> kind) : kind_(kind), heartbeat_(loop) {}

  [[nodiscard]] ProcessOptions options() const {
    ProcessOptions out;
    out.name = "zz-test-" + std::to_string(::getpid()) + "-" + dir.path().substr(dir.path().size() - 6);
    out.work_dir = dir.path() + "/work";
    out.log_dir = dir.path() + "/log";
    out.slots = {{ServiceId{0}, SlotId{0}}, {ServiceId{0}, SlotId{1}}};
    out.freezer = kind_;
    out.command = [behaviour = behaviour](const GuestId&, const std::string&) {
      return std::vector<std::string>{ZZ_TEST_GUEST, behaviour};
    };
    return out;
  }
  // Why it is not there, when it is not.
  std::string open() {
    auto made = ProcessBackend::make(loop, options());
    if (!made) return made.error();
    backend = std::move(*made);
    backend->set_on_dead([this](const GuestId& guest) { dead.push_back(guest); });
    return {};
  }

  // Waits for the answer to a call.
  template <class Call>
  Result<void> await(Call call) {
    std::optional<Result<void>> answer;
    int answers = 0;
    call([&](const Result<void>& result) {
      answer = result;
      ++answers;
    });
    EXPECT_FALSE(answer) << "answered from inside the call";
    EXPECT_TRUE(test::run_until(loop, [&] { return answer.has_value(); }));
    EXPECT_EQ(answers, 1);
    return answer ? *answer : Error{"no answer"};
  }
  Result<void> boot(const GuestId& guest) {
    return await([&](auto done) { backend->boot(guest, done); });
  }
  Result<void> freeze(const GuestId& guest) {
    return await([&](auto done) { backend->freeze(guest, done); });
  }
  Result<void> thaw(const GuestId& guest) {
    return await([&](auto done) { backend->thaw(guest, done); });
  }
  Result<void> hand_over(const Identity& identity) {
    return await([&](auto done) { backend->hand_over(identity, done); });
  }
  Result<void> destroy(const GuestId& guest) {
    return await([&](auto done) { backend->destroy(guest, done); });
  }
  Result<void> inject(const GuestId& guest, FaultKind kind) {
    return await([&](auto done) { backend->inject(guest, kind, done); });
  }
  [[nodiscard]] bool until(const std::function<bool()>& done) { return test::run_until(loop, done); }

  [[nodiscard]] std::string work(const GuestId& guest) const { return dir.path() + "/work/" + to_string(guest); }
  [[nodiscard]] bool has_file(const GuestId& guest, const std::string& name) const {
    return std::filesystem::exists(work(guest) + "/" + name);
  }

  TempDir dir;
  boost::asio::io_context loop{1};
  std::string behaviour;
  std::unique_ptr<ProcessBackend> backend;
  std::vector<GuestId> dead;

 private:
  std::optional<FreezerKind> kind_;
  Heartbeat heartbeat_;
};

}  // namespace zz::vmpool
