#pragma once

// SimNode: one agreement node: a real ServiceInstance, a disk that keeps what was synced, a clock, and, when it is
// Byzantine, an adversary before its correct code, or a twin. One thread, virtual time.
//
// A turn: messages step the instance, run() follows, promises are synced, and only then the turn's messages leave.
// While a sync or a pause lasts, input gathers.

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "agreement/log_record.hpp"
#include "agreement/service_instance.hpp"
#include "tests/sim/kernel.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/plan.hpp"

namespace zz::sim {

// What a disk has, in the order in which it was written.
class SimDisk {
 public:
  void write(agreement::LogRecord record) { records_.push_back(std::move(record)); }
  // Of what is on disk from now on the last of the order, which is written ascending; null: nothing of it.
  const agreement::OrderedRecord* sync();
  // A crash: of what was not synced, the first `kept` records stay; they are on the disk from now on.
  std::vector<agreement::LogRecord> crash(std::size_t kept);
  // The disk lied, or an old copy was put back: the last `lost` records are gone, synced or not.
  void lose(std::size_t lost);
  [[nodiscard]] std::size_t unsynced() const { return records_.size() - synced_; }
  [[nodiscard]] std::size_t size() const { return records_.size(); }
  [[nodiscard]] agreement::Recovered recovered() const;

 private:
  std::vector<agreement::LogRecord> records_;
  std::size_t synced_ = 0;
};

// Monotonic time that drifts and never jumps; wall time that does.
class SimClock {
 public:
  static constexpr std::int64_t kWallStart = 1'700'000'000'000'000;
  void set_drift(Micros now, std::int64_t parts_per_million);
  void set_offset(std::int64_t micros) { offset_ = micros; }
  [[nodiscard]] Micros monotonic(Micros now) const;
  [[nodiscard]] Micros wall(Micros now) const { return Micros{kWallStart + monotonic(now).value + offset_}; }

 private:
  std::int64_t anchor_ = 0;
  std::int64_t anchor_value_ = 1'000'000;
  std::int64_t ppm_ = 0;
  std::int64_t offset_ = 0;
};

enum class CrashKind : std::uint8_t {
  kClean,     // everything that was not synced is lost
  kTorn,      // some of it stays
  kDamaged,   // the log is found damaged: a learner
  kRollback,  // records that were synced are lost, unnoticed
};

struct DiskSpeed {
  std::int64_t least = 50;
  std::int64_t most = 2'000;
  std::uint32_t slow_percent = 0;  // syncs that take up to half a second
};

struct NodeStatus {
  bool alive = false;
  View view;
  bool changing = false;
  Seq delivered;
  Seq stable;
  Micros view_timeout;
  std::size_t waiting = 0;
  agreement::ReplicaStats stats;
};

class SimNode {
 public:
  // `kind` empty: correct. Everything given must outlive it.
  SimNode(Kernel& kernel, Network& network, NodeId id, const crypto::SecretKey& key, std::string kind,
          std::map<NodeId, const crypto::SecretKey*> accomplices, std::uint64_t seed);
  ~SimNode();

  void start();
  void crash(CrashKind kind);
  // Stands still until resume().
  void pause();
  void resume(std::uint64_t pause);
  [[nodiscard]] std::uint64_t pauses() const { return pauses_; }

  [[nodiscard]] bool alive() const { return alive_; }
  [[nodiscard]] bool paused() const { return paused_; }
  [[nodiscard]] bool byzantine() const { return !kind_.empty(); }
  [[nodiscard]] const std::string& kind() const { return kind_; }
  // Lost what it promised: counts as faulty from then on.
  [[nodiscard]] bool amnesiac() const { return amnesiac_; }
  [[nodiscard]] std::uint64_t life() const { return life_; }
  [[nodiscard]] NodeId id() const { return id_; }
  [[nodiscard]] Party party() const { return id_.value; }
  [[nodiscard]] bool admits(const crypto::Peer& executor) const;
  [[nodiscard]] NodeStatus status() const;
  // Requires alive().
  [[nodiscard]] const agreement::ServiceInstance& instance() const;
  [[nodiscard]] std::uint64_t view_changes() const;

  void deliver(Party from, const MessagePtr& message);
  void link_up(Party other);
  void link_down(Party other);
  void tick();
  void synced(const Happening& happening);
  void act();
  // Twins: who talks to which copy is drawn anew.
  void regroup();
  // Of the nodes it is as told, and stays until the next word.
  void regroup(const std::array<std::set<NodeId>, 2>& of_copies);

  SimClock clock;
  DiskSpeed disk_speed;
  bool lying_disk = false;

 private:
  struct Body;
  struct Leaving {
    Party to;
    MessagePtr message;  // null: what the witness is to know at this point
    Seq delivered;       // deliveries up to here
    agreement::CertificatePtr stable;
  };

  void step(Body& body, const crypto::Peer& from, const MessagePtr& message);
  void turn(Body& body);
  void release(Body& body);
  void leave(Body& body, Party to, const MessagePtr& message);
  void leave_as_told(std::vector<Adversary::Leaving>& parcels);
  void tell_channel(const crypto::Peer& peer, bool up);
  void drain(Body& body);
  void make_body(Body& body, const agreement::Recovered* recovered);
  [[nodiscard]] bool serves(const Body& body, Party other) const;
  [[nodiscard]] AdversaryWorld adversary_world();
  [[nodiscard]] bool trusted() const { return !byzantine() && !amnesiac_; }
  [[nodiscard]] std::int64_t sync_time();

  Kernel& kernel_;
  Network& network_;
  NodeId id_;
  const crypto::SecretKey& key_;
  std::string kind_;
  std::map<NodeId, const crypto::SecretKey*> accomplices_;
  Prng prng_;
  std::unique_ptr<Adversary> adversary_;
  std::vector<Adversary::Leaving> leaving_;
  SimDisk disk_;
  std::vector<std::unique_ptr<Body>> bodies_;  // two of a twin
  std::vector<std::uint8_t> groups_;           // by party: bit per body that it talks with
  bool regrouped_ = false;                     // as told
  bool alive_ = false;
  bool paused_ = false;
  bool amnesiac_ = false;
  bool damaged_ = false;  // found at the next start
  std::uint64_t life_ = 0;
  std::uint64_t pauses_ = 0;
  std::uint64_t view_changes_before_ = 0;  // of earlier lives
};

}  // namespace zz::sim
