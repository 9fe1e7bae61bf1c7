#pragma once

// The port between the pool and whatever runs a replica: a process group here, a virtual machine elsewhere.
//
// One thread (the loop's); every call returns at once and reports through `done`, exactly once, later. Per
// call: prerequisite / on success / on failure. A guest is named by its slot and incarnation; a backend never
// reuses a name.
//
//   boot      no guest of that name / a fresh guest on a copy of the golden state, service started, agent
//   idle and
//             without key; running / no guest
//   freeze    running / uses no CPU, memory kept; idempotent / as before
//   thaw      frozen / runs again; idempotent / as before, or dead
//   hand_over running / the agent holds key, incarnation and epoch and dials the agreement nodes / as before
//   destroy   any state / no process, no file of the guest left (forensic copy if configured); idempotent /
//   said so,
//             try again
// A guest that ends by itself is reported through on_dead once; what is left of it goes with destroy.
// A call that destroy overtakes is answered with an error.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agreement/agent_link.hpp"
#include "base/ids.hpp"
#include "base/result.hpp"
#include "crypto/sign.hpp"

namespace zz::vmpool {

struct GuestId {
  ServiceId service;
  SlotId slot;
  Incarnation incarnation;
  auto operator<=>(const GuestId&) const = default;
};

// "s0-slot1-3": names directories, control groups and log lines of a guest.
std::string to_string(const GuestId& guest);

// What a woken replica is told (docs/protocol.md §10.1).
struct Identity {
  GuestId guest;
  Epoch epoch;
  std::array<std::uint8_t, 32> key_seed{};  // Ed25519 seed, made by the host for this incarnation
  std::array<std::uint8_t, 32> entropy{};   // fresh randomness
};

// Test clusters only.
enum class FaultKind : std::uint8_t { kWrongReply, kSilent, kSlow, kCrash };
std::optional<FaultKind> parse_fault(std::string_view name);  // wrong-reply | silent | slow | crash
std::string_view to_string(FaultKind kind);

class Hypervisor {
 public:
  using Done = std::function<void(Result<void>)>;
  using OnDead = std::function<void(const GuestId&)>;
  using OnDuty = std::function<void(const GuestId&, const agreement::Duty&)>;
  virtual ~Hypervisor() = default;
  virtual void boot(const GuestId& guest, Done done) = 0;
  virtual void freeze(const GuestId& guest, Done done) = 0;
  virtual void thaw(const GuestId& guest, Done done) = 0;
  virtual void hand_over(const Identity& identity, Done done) = 0;
  virtual void destroy(const GuestId& guest, Done done) = 0;
  // Makes the guest misbehave (kWrongReply and kSlow by its agent, kSilent by freezing it, kCrash by killing it).
  virtual void inject(const GuestId& guest, FaultKind kind, Done done) = 0;
  // Whom to tell of guests that end by themselves. Set once, before the first boot.
  virtual void set_on_dead(OnDead on_dead) = 0;
  // Whom to tell how a woken guest gets on, by its own word. Set once, likewise.
  virtual void set_on_duty(OnDuty on_duty) = 0;
  // The operating system's process ids of a guest, ascending, for people; empty when there is none.
  [[nodiscard]] virtual std::vector<std::int64_t> processes(const GuestId& guest) const = 0;
};

}  // namespace zz::vmpool
