#include "vmpool/process/process_backend.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>

#include "crypto/digest.hpp"
#include "vmpool/process/guest_process.hpp"
#include "vmpool/process/mounts.hpp"
#include "vmpool/process/warden.hpp"

namespace zz::vmpool {
namespace {

namespace fs = std::filesystem;
using boost::system::error_code;
using GuestPtr = std::shared_ptr<GuestProcess>;
using Phase = GuestProcess::Phase;

Result<void> make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return {};
  return Error{path + ": cannot make the directory: " + std::strerror(errno)};
}

// One earlier log of a slot is enough.
void set_aside_if_long(const std::string& log) {
  std::error_code error;
  if (fs::file_size(log, error) > kGuestLogBytesMax && !error) fs::rename(log, log + ".1", error);
}

void remove_leftovers(const ProcessOptions& options) {
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(options.work_dir, error)) found.push_back(entry.path());
  for (const fs::path& path : found) {
    const std::string name = path.filename().string();
    for (const auto& [service, slot] : options.slots) {
      std::string prefix = to_string(GuestId{service, slot, Incarnation{}});
      prefix.pop_back();  // without the incarnation
      if (name.rfind(prefix, 0) == 0 && take_off_mounts(path)) fs::remove_all(path, error);
    }
  }
}

}  // namespace

struct ProcessBackend::State : std::enable_shared_from_this<ProcessBackend::State> {
  State(boost::asio::io_context& io, ProcessOptions given, Warden started)
      : loop(io),
        options(std::move(given)),
        warden(std::move(started)),
        reports(io, ::fcntl(warden.socket(), F_DUPFD_CLOEXEC, 0)) {}

  boost::asio::io_context& loop;
  ProcessOptions options;
  Warden warden;
  boost::asio::posix::stream_descriptor reports;
  std::map<GuestId, GuestPtr> guests;
  std::uint64_t last_number = 0;
  bool lost = false;  // the warden
  OnDead on_dead;
  OnDuty on_duty;

  // ---- helpers -------------------------------------------------------------------------------------------------

  void later(Done done, Result<void> result) {
    boost::asio::post(loop,
                      [done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
  }
  [[nodiscard]] GuestPtr find(const GuestId& id) const {
    const auto it = guests.find(id);
    return it == guests.end() ? nullptr : it->second;
  }
  [[nodiscard]] GuestPtr find(std::uint64_t number) const {
    for (const auto& [id, guest] : guests) {
      if (guest->number == number) return guest;
    }
    return nullptr;
  }
  // The guest if it runs; otherwise answers `done`.
  GuestPtr running(const GuestId& id, Done& done) {
    GuestPtr guest = find(id);
    if (guest && guest->phase == Phase::kRunning) return guest;
    later(std::move(done), Error{to_string(id) + " is not running"});
    return nullptr;
  }
  // Calls `then` after `limit_ms` unless the guest's limit is set anew or cancelled.
  void set_limit(const GuestPtr& guest, std::uint32_t limit_ms, std::function<void()> then) {
    guest->limit.expires_after(std::chrono::milliseconds(limit_ms));
    guest->limit.async_wait([weak = weak_from_this(), then = std::move(then)](const error_code& error) {
      if (error) return;
      if (const auto self = weak.lock()) then();
    });
  }

  // ---- boot ----------------------------------------------------------------------------------------------------

  void boot(const GuestId& id, Done done) {
    if (lost) return later(std::move(done), Error{"the warden is gone"});
    if (find(id)) return later(std::move(done), Error{to_string(id) + " exists"});
    auto guest = std::make_shared<GuestProcess>(loop);
    guest->id = id;
    guest->number = ++last_number;
    guest->name = to_string(id);
    guest->work = options.work_dir + "/" + guest->name;
    guest->log = options.log_dir + "/" + guest->name.substr(0, guest->name.rfind('-')) + ".log";
    guests.emplace(id, guest);
    guest->boot = std::move(done);
    if (auto begun = spawn(guest); !begun) {
      guest->spawn_answered = guest->exited = true;
      return boot_failed(guest, begun.error());
    }
    set_limit(guest, options.boot_timeout_ms, [this, id] {
      const std::string limit = std::to_string(options.boot_timeout_ms);
      if (const GuestPtr found = find(id); found && found->phase == Phase::kStarting)
        boot_failed(found, "was not ready within " + limit + " ms");
    });
  }

  Result<void> spawn(const GuestPtr& guest) {
    if (auto made = make_directory(guest->work); !made) return made;
    auto freezer = Freezer::make(warden.home(), guest->name);
    if (!freezer) return Error{freezer.error()};
    guest->freezer = std::move(*freezer);
    set_aside_if_long(guest->log);
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
      return Error{std::string("no socket pair: ") + std::strerror(errno)};
    listen_to(guest, ends[0]);
    const auto sent = warden.spawn(
        {guest->number, options.command(guest->id, guest->work), guest->work, guest->log, guest->freezer->join_path()},
        ends[1]);
    ::close(ends[1]);
    return sent;
  }

  void listen_to(const GuestPtr& guest, int fd) {
    const std::weak_ptr<State> weak = weak_from_this();
    const auto with = [weak, id = guest->id](auto&& act) {
      const auto self = weak.lock();
      const GuestPtr found = self ? self->find(id) : nullptr;
      if (found) act(*self, found);
    };
    AgentChannel::Callbacks callbacks;
    callbacks.on_line = [with](const agreement::FromAgent& line) {
      with([&line](State& self, const GuestPtr& found) { self.heard(found, line); });
    };
    callbacks.on_end = [with](const std::string& why) {
      with([&why](State& self, const GuestPtr& found) { self.channel_ended(found, why); });
    };
    guest->channel = std::make_shared<AgentChannel>(loop, fd, std::move(callbacks));
    guest->channel->start();
  }

  void heard(const GuestPtr& guest, const agreement::FromAgent& line) {
    using LineKind = agreement::FromAgent::Kind;
    if (line.kind == LineKind::kReady) {
      guest->ready = true;
      boot_if_complete(guest);
    } else if (line.kind == LineKind::kFailed && guest->phase == Phase::kStarting) {
      boot_failed(guest, line.error);
    } else if (line.kind == LineKind::kFailed && guest->phase == Phase::kRunning) {
      condemn(guest);
    } else if (line.kind == LineKind::kFaulted && guest->fault) {
      guest->limit.cancel();
      std::exchange(guest->fault, nullptr)({});
    } else if (line.kind == LineKind::kDuty && on_duty) {
      on_duty(guest->id, line.duty);
    }
  }

  // The agent may speak before the warden does; without its process id it cannot be frozen.
  void boot_if_complete(const GuestPtr& guest) {
    if (guest->phase != Phase::kStarting || !guest->ready || !guest->spawn_answered) return;
    guest->limit.cancel();
    guest->phase = Phase::kRunning;
    std::exchange(guest->boot, nullptr)({});
  }

  void channel_ended(const GuestPtr& guest, const std::string& why) {
    // A guest that ended closes its channel too; the warden's word, which says how it ended, is on its way.
    if (guest->phase == Phase::kStarting) {
      set_limit(guest, kFaultTimeoutMs, [this, id = guest->id, why] {
        if (const GuestPtr found = find(id); found && found->phase == Phase::kStarting)
          boot_failed(found, "the agent " + why);
      });
    } else if (guest->phase == Phase::kRunning) {
      condemn(guest);
    }
  }

  // There is no guest after a failed boot, so that comes first.
  void boot_failed(const GuestPtr& guest, const std::string& why) {
    const std::string text = guest->name + ": " + why + " (see " + guest->log + ")";
    const auto report = [boot = std::exchange(guest->boot, nullptr), text](const Result<void>& gone) {
      boot(Error{gone ? text : text + "; " + gone.error()});
    };
    guest->destroys.emplace_back(report);
    begin_destroy(guest);
  }

  // ---- sleeping, waking, misbehaving ---------------------------------------------------------------------------

  void freeze(const GuestId& id, Done done) {
    const GuestPtr guest = running(id, done);
    if (!guest) return;
    if (guest->frozen) return later(std::move(done), {});
    freeze(guest, "freezing", std::move(done));
  }

  void freeze(const GuestPtr& guest, const std::string& doing, Done done) {
    if (auto begun = guest->freezer->freeze(); !begun) return later(std::move(done), begun);
    const auto step = [g = guest.get()]() -> Result<bool> {
      g->frozen = g->freezer->frozen();
      return g->frozen;
    };
    const auto finish = [weak = std::weak_ptr(guest), done = std::move(done)](const Result<void>& result) {
      const GuestPtr g = weak.lock();
      if (!result && g && g->phase == Phase::kRunning) (void)g->freezer->thaw();
      done(result);
    };
    guest->task.run(guest, {guest->name + ": " + doing, kFreezeTimeoutMs, step, finish});
  }

  void thaw(const GuestId& id, Done done) {
    const GuestPtr guest = running(id, done);
    if (!guest) return;
    if (guest->silenced) return later(std::move(done), {});
    guest->task.cancel("overtaken by thawing");
    Result<void> thawed = guest->freezer->thaw();
    if (thawed) guest->frozen = false;
    later(std::move(done), std::move(thawed));
  }

  void hand_over(const Identity& identity, Done done) {
    const GuestPtr guest = running(identity.guest, done);
    if (!guest) return;
    if (guest->frozen && !guest->silenced) return later(std::move(done), Error{guest->name + " is frozen"});
    agreement::ToAgent message;
    message.identity = agreement::AgentIdentity{identity.guest.service, identity.guest.slot, identity.guest.incarnation,
                                                identity.epoch,         identity.key_seed,   identity.entropy};
    guest->channel->send(message, std::move(done));
  }

  void inject(const GuestId& id, FaultKind kind, Done done) {
    const GuestPtr guest = running(id, done);
    if (!guest) return;
    if (guest->task.running() || guest->fault)
      return later(std::move(done), Error{guest->name + " is busy: try again"});
    switch (kind) {
      case FaultKind::kSilent:
        return freeze(guest, "silencing",
                      [weak = std::weak_ptr(guest), done = std::move(done)](const Result<void>& result) {
                        const GuestPtr g = weak.lock();
                        if (result && g) g->silenced = true;
                        done(result);
                      });
      case FaultKind::kCrash:
        return crash(guest, std::move(done));
      case FaultKind::kWrongReply:
      case FaultKind::kSlow:
        return tell_fault(guest, kind, std::move(done));
    }
  }

  void tell_fault(const GuestPtr& guest, FaultKind kind, Done done) {
    agreement::ToAgent message;
    message.fault = to_string(kind);
    // A sleeper reads it when it wakes, before anything else.
    if (guest->frozen) return guest->channel->send(message, std::move(done));
    guest->fault = std::move(done);
    set_limit(guest, kFaultTimeoutMs, [this, id = guest->id] {
      if (const GuestPtr found = find(id); found && found->fault)
        std::exchange(found->fault, nullptr)(Error{found->name + ": the agent does not answer"});
    });
    guest->channel->send(message, [this, weak = weak_from_this(), id = guest->id](const Result<void>& written) {
      if (written || !weak.lock()) return;
      if (const GuestPtr found = find(id); found && found->fault) {
        found->limit.cancel();
        std::exchange(found->fault, nullptr)(written);
      }
    });
  }

  void crash(const GuestPtr& guest, Done done) {
    const auto finish = [weak = std::weak_ptr(guest), done = std::move(done)](const Result<void>& result) {
      // When the pool takes the rest away in the meantime, the crash has worked as well.
      const GuestPtr g = weak.lock();
      done(result || !g || g->exited ? Result<void>() : result);
    };
    guest->dying = true;
    guest->task.run(guest, {guest->name + ": killing", kDestroyTimeoutMs,
                            [g = guest.get()]() -> Result<bool> { return g->freezer->kill_round(); }, finish});
  }

  // A guest that does not keep to the protocol, or cannot be told anything any more, is as good as dead.
  void condemn(const GuestPtr& guest) {
    if (!guest->dying) crash(guest, [](const Result<void>&) {});
  }

  // ---- the end -------------------------------------------------------------------------------------------------

  void ended(const GuestPtr& guest, const std::string& how) {
    guest->exited = true;
    if (guest->phase == Phase::kStarting) return boot_failed(guest, how + " before it was ready");
    if (guest->phase != Phase::kRunning) return;
    guest->phase = Phase::kDead;
    // A crash goes on: the first process went, its family follows.
    if (!guest->dying) guest->task.cancel(guest->name + " " + how);
    drop_calls(guest, guest->name + " " + how);
    guest->channel->close();
    if (on_dead) on_dead(guest->id);
  }

  static void drop_calls(const GuestPtr& guest, const std::string& why) {
    guest->limit.cancel();
    if (guest->fault) std::exchange(guest->fault, nullptr)(Error{why});
    if (guest->boot) std::exchange(guest->boot, nullptr)(Error{why});
  }

  void destroy(const GuestId& id, Done done) {
    const GuestPtr guest = find(id);
    if (!guest) return later(std::move(done), {});
    guest->destroys.push_back(std::move(done));
    // Someone who calls a callback from drop_calls must not find itself inside this call.
    boost::asio::post(loop, [weak = weak_from_this(), id] {
      const auto self = weak.lock();
      if (const GuestPtr found = self ? self->find(id) : nullptr) self->begin_destroy(found);
    });
  }

  void begin_destroy(const GuestPtr& guest) {
    if (guest->forgetting) return;
    if (guest->phase == Phase::kDestroying && guest->task.running()) return;
    guest->phase = Phase::kDestroying;
    guest->task.cancel(guest->name + " is being destroyed");
    drop_calls(guest, guest->name + " is being destroyed");
    if (guest->channel) guest->channel->close();
    const auto step = [g = guest.get()]() -> Result<bool> {
      if (!g->spawn_answered) return false;
      if (!g->freezer) return true;
      // The kernel may need a moment to let go of an empty group.
      return g->freezer->kill_round() && g->exited && g->freezer->remove().ok();
    };
    const auto finish = [this, weak = weak_from_this(), id = guest->id](const Result<void>& result) {
      const auto self = weak.lock();
      const GuestPtr found = self ? find(id) : nullptr;
      if (!found) return;
      if (!result) return answer_destroys(found, result);
      forget(found);
    };
    guest->task.run(guest, {guest->name + ": destroying", kDestroyTimeoutMs, step, finish});
  }

  // No process is left; the warden removes the files, which may take a while.
  void forget(const GuestPtr& guest) {
    guest->forgetting = true;
    const auto asked = lost ? Result<void>(Error{"the warden is gone"}) : warden.forget(guest->number);
    if (!asked) {
      forgotten(guest, {});
      return;
    }
    set_limit(guest, kDestroyTimeoutMs, [this, id = guest->id] {
      if (const GuestPtr found = find(id))
        answer_destroys(found, Error{found->name + ": its files are still being removed"});
    });
  }

  void forgotten(const GuestPtr& guest, const std::string& left) {
    // Also covers a guest that the warden never got to know.
    std::error_code error;
    Result<void> gone = take_off_mounts(guest->work);
    if (gone) fs::remove_all(guest->work, error);
    if (error) gone = Error{left.empty() ? guest->work + ": " + error.message() : left};
    guest->limit.cancel();
    guests.erase(guest->id);
    answer_destroys(guest, gone);
  }

  static void answer_destroys(const GuestPtr& guest, const Result<void>& result) {
    for (const Done& done : std::exchange(guest->destroys, {})) done(result);
  }

  // ---- the warden ----------------------------------------------------------------------------------------------

  void wait_for_reports() {
    reports.async_wait(boost::asio::posix::descriptor_base::wait_read,
                       [weak = weak_from_this()](const error_code& error) {
                         const auto self = weak.lock();
                         if (!self || error) return;
                         self->take_reports();
                       });
  }

  void take_reports() {
    while (const auto report = warden.next_report()) {
      if (report->kind == WardenReport::Kind::kLost) return warden_lost();
      const GuestPtr guest = find(report->number);
      if (!guest) continue;
      switch (report->kind) {
        case WardenReport::Kind::kSpawned:
          guest->spawn_answered = true;
          guest->freezer->set_first(report->pid);
          boot_if_complete(guest);
          break;
        case WardenReport::Kind::kNotSpawned:
          guest->spawn_answered = guest->exited = true;
          if (guest->phase == Phase::kStarting) boot_failed(guest, report->text);
          break;
        case WardenReport::Kind::kExited:
          ended(guest, report->text);
          break;
        case WardenReport::Kind::kForgotten:
          forgotten(guest, report->text);
          break;
        default:
          break;
      }
    }
    wait_for_reports();
  }

  // The kernel killed the first processes; their families die with the control groups.
  void warden_lost() {
    lost = true;
    std::vector<GuestPtr> all;
    for (const auto& [id, guest] : guests) all.push_back(guest);
    for (const GuestPtr& guest : all) {
      guest->spawn_answered = true;
      ended(guest, "lost its warden");
      begin_destroy(guest);
    }
    if (options.on_fatal) options.on_fatal("the warden process was killed; no guest can be kept without it");
  }
};

ProcessOptions process_options(const crypto::ClusterFile& cluster, HostId host, const std::string& dir,
                               const std::string& binary) {
  ProcessOptions out;
  std::error_code error;
  const fs::path real = fs::canonical(dir, error);
  const std::string place = error ? dir : real.string();
  // The same cluster may exist twice on one machine, in copies of its directory.
  const Digest place_digest = crypto::sha256(as_bytes(place));
  out.name = "zz-" + to_hex(cluster.id.bytes).substr(0, 8) + "-" + to_hex(place_digest.bytes).substr(0, 8) + "-host" +
             std::to_string(host.value);
  out.work_dir = place + "/work";
  out.log_dir = place + "/log";
  std::uint32_t start_ms = 0;
  for (const crypto::ServiceEntry& service : cluster.services) {
    for (const crypto::SlotEntry& slot : service.slots) {
      if (slot.host != host) continue;
      out.slots.emplace_back(service.id, slot.id);
      start_ms = std::max(start_ms, service.http.start_timeout_ms);
    }
  }
  out.boot_timeout_ms = start_ms + kBootMarginMs;
  out.command = [binary, place](const GuestId& guest, const std::string& work) -> std::vector<std::string> {
    return {binary,          "execution",
            "--dir",         place,
            "--service",     std::to_string(guest.service.value),
            "--slot",        std::to_string(guest.slot.value),
            "--incarnation", std::to_string(guest.incarnation.value),
            "--control-fd",  "3",
            "--work",        work,
            "--store",       work.substr(0, work.rfind('-'))};  // the slot's; remove_leftovers() leaves it
  };
  return out;
}

Result<std::unique_ptr<ProcessBackend>> ProcessBackend::make(boost::asio::io_context& loop, ProcessOptions options) {
  for (const std::string& directory : {options.work_dir, options.log_dir}) {
    std::error_code error;
    fs::create_directories(directory, error);
    if (error) return Error{directory + ": cannot make the directory: " + error.message()};
  }
  auto warden = Warden::start({options.name, options.freezer, options.keep_fd});
  if (!warden) return Error{warden.error()};
  remove_leftovers(options);
  auto state = std::make_shared<State>(loop, std::move(options), std::move(*warden));
  state->wait_for_reports();
  return std::unique_ptr<ProcessBackend>(new ProcessBackend(std::move(state)));
}

ProcessBackend::ProcessBackend(std::shared_ptr<State> state) : state_(std::move(state)) {}

ProcessBackend::~ProcessBackend() {
  state_->on_dead = nullptr;
  state_->on_duty = nullptr;
  for (const auto& [id, guest] : state_->guests) {
    if (guest->channel) guest->channel->close();
  }
  // Otherwise the warden does it.
  if (state_->lost) (void)clear_freezer(state_->warden.home(), kDestroyTimeoutMs);
}

void ProcessBackend::boot(const GuestId& guest, Done done) { state_->boot(guest, std::move(done)); }
void ProcessBackend::freeze(const GuestId& guest, Done done) { state_->freeze(guest, std::move(done)); }
void ProcessBackend::thaw(const GuestId& guest, Done done) { state_->thaw(guest, std::move(done)); }
void ProcessBackend::hand_over(const Identity& identity, Done done) { state_->hand_over(identity, std::move(done)); }
void ProcessBackend::destroy(const GuestId& guest, Done done) { state_->destroy(guest, std::move(done)); }
void ProcessBackend::inject(const GuestId& guest, FaultKind kind, Done done) {
  state_->inject(guest, kind, std::move(done));
}
void ProcessBackend::set_on_dead(OnDead on_dead) { state_->on_dead = std::move(on_dead); }
void ProcessBackend::set_on_duty(OnDuty on_duty) { state_->on_duty = std::move(on_duty); }

std::vector<std::int64_t> ProcessBackend::processes(const GuestId& guest) const {
  const GuestPtr found = state_->find(guest);
  if (!found || !found->freezer) return {};
  const std::vector<pid_t> pids = found->freezer->processes();
  return {pids.begin(), pids.end()};
}

FreezerKind ProcessBackend::freezer() const { return state_->warden.home().kind; }
std::int64_t ProcessBackend::warden() const { return state_->warden.pid(); }

}  // namespace zz::vmpool
