#pragma once

// ProcessBackend: the Hypervisor whose guests are process groups on this machine. A guest is one program (the execution
// agent) with everything it starts, held by a Freezer; its working directory is its disk; a socket pair on its
// descriptor 3 is its control channel (agreement/agent_link.hpp). The Warden is the parent of all guests.
//
// Runs on the io_context's single thread; no call waits, except that the destructor ends every guest. The io_context
// must outlive it. make() forks the warden: call it before the process has threads or secrets.
//
// Isolation is that of processes of one user: a guest that is out to harm its host can. For guests that are not trusted
// use virtual machines.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "crypto/cluster.hpp"
#include "vmpool/hypervisor.hpp"
#include "vmpool/process/freezer.hpp"

namespace zz::vmpool {

inline constexpr int kFreezeTimeoutMs = 2'000;
inline constexpr int kDestroyTimeoutMs = 10'000;
inline constexpr int kFaultTimeoutMs = 5'000;
inline constexpr std::uint32_t kBootMarginMs = 10'000;          // beyond the service's own start timeout
inline constexpr std::uintmax_t kGuestLogBytesMax = 16u << 20;  // then the log is set aside, once
inline constexpr std::size_t kAgentQueueMax = 64;               // lines not yet taken by an agent

struct ProcessOptions {
  std::string name;      // of the parent control group; no other host daemon on this machine may use it
  std::string work_dir;  // holds one directory per guest
  std::string log_dir;
  // Slots of this host: what earlier daemons left of them in work_dir is removed by make().
  std::vector<std::pair<ServiceId, SlotId>> slots;
  // The program and its arguments; it gets the control channel as descriptor 3.
  std::function<std::vector<std::string>(const GuestId& guest, const std::string& work)> command;
  std::uint32_t boot_timeout_ms = 20'000;
  std::optional<FreezerKind> freezer;  // nothing: the best that works
  int keep_fd = -1;                    // see Warden::Options
  // The warden was killed: every guest is dead and none can boot.
  std::function<void(std::string)> on_fatal;
};

// What a host daemon of that cluster uses: `binary` is the zz program, `dir` the cluster directory.
ProcessOptions process_options(const crypto::ClusterFile& cluster, HostId host, const std::string& dir,
                               const std::string& binary);

class ProcessBackend final : public Hypervisor {
 public:
  static Result<std::unique_ptr<ProcessBackend>> make(boost::asio::io_context& loop, ProcessOptions options);
  ~ProcessBackend() override;

  void boot(const GuestId& guest, Done done) override;
  void freeze(const GuestId& guest, Done done) override;
  void thaw(const GuestId& guest, Done done) override;
  void hand_over(const Identity& identity, Done done) override;
  void destroy(const GuestId& guest, Done done) override;
  void inject(const GuestId& guest, FaultKind kind, Done done) override;
  void set_on_dead(OnDead on_dead) override;
  void set_on_duty(OnDuty on_duty) override;
  [[nodiscard]] std::vector<std::int64_t> processes(const GuestId& guest) const override;

  [[nodiscard]] FreezerKind freezer() const;
  [[nodiscard]] std::int64_t warden() const;  // process id

 private:
  struct State;
  explicit ProcessBackend(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace zz::vmpool
