#pragma once

// The inside of Oversight; included by oversight*.cpp only. What comes in is in oversight.cpp, what this node
// makes of it in oversight_signs.cpp (signs of trouble, episodes, WAKEs), oversight_checkpoints.cpp (the state after
// checkpoints, and signs of trouble in it), oversight_rejuvenation.cpp and oversight_suspects.cpp (suspicions, epoch
// changes, joins).
//
// An episode is the time from the first sign to the moment when no sign is open and no active slot is in doubt.

#include <array>
#include <map>
#include <optional>
#include <vector>

#include "agreement/conviction_book.hpp"
#include "agreement/exec_checkpoint_book.hpp"
#include "agreement/oversight.hpp"
#include "agreement/slot_log.hpp"
#include "agreement/slot_table.hpp"
#include "agreement/suspect_book.hpp"
#include "agreement/vote_book.hpp"

namespace zz::agreement {

// What this node thinks of one slot's current incarnation. A new incarnation starts with a clean one.
struct SlotWatch {
  std::uint32_t channels = 0;
  bool ever_connected = false;
  bool dead = false;  // its host says so
  Micros up_since;    // first channel
  Micros down_since;  // last channel lost

  Seq wrong_at;                      // its vote for this batch differs from g+1 equal ones; 0 = none
  bool wrong_in_root = false;        // not its vote, but what it says of the state after it
  Seq late_at;                       // no vote for this closed batch in time; 0 = none
  bool late_in_root = false;         // not a vote, but a word about the state after it
  bool late_made_good = false;       // the vote for late_at, or the word, came after all
  Micros unforgiven_until;           // ... but it is the second time, and late all the same
  std::optional<Micros> delayed_at;  // this node last asked for wake-ups because of its delay
  bool gone = false;
  Seq gone_at;  // last delivered batch when it was found gone
  bool surplus = false;

  Seq catch_up_to;     // an active slot that has not voted up to here may take its time,
  Micros progress_at;  // while its votes keep coming
  Micros grace_until;  // and not beyond this

  std::optional<Micros> fetched_at;    // it last asked for parts of the state here: it lacks some
  std::optional<Micros> spared_since;  // it is late, but perhaps the only one that lacks nothing

  std::optional<Suspect> said;  // what this node signed last
  Micros said_at;
  std::uint8_t reported = 0;  // bits by Suspicion: told the observer
  std::optional<Epoch> wake_epoch;
  Micros wake_at;
  std::optional<Micros> awaited_since;  // it sleeps, and this node has wanted it awake from then on

  struct Ahead {
    Epoch epoch;
    std::vector<Digest> replies;
  };
  std::map<Seq, Ahead> ahead;  // votes for batches not delivered here yet
  std::size_t ahead_digests = 0;
  std::map<Seq, Digest> roots_ahead;  // EXEC-CHECKPOINTs likewise

  Seq began_at;  // it began with the state after this batch, not known to be stable here yet; 0 = no

  // Outlives incarnations: the newest join heard of that is not ordered yet.
  std::optional<Join> join;
  Micros join_since;
  std::optional<Micros> join_proposed_at;
};

// The cluster file's timing, in microseconds.
struct OversightSpans {
  explicit OversightSpans(const crypto::Timing& timing);
  Micros overdue_floor;
  Micros overdue_ceiling;
  Micros execution_timeout;
  Micros gone;
  Micros late;
  Micros wake_budget;
  Micros tick_gap;  // the most that counts between two ticks
  std::int64_t overdue_factor;
};

struct Oversight::State {
  State(const crypto::ClusterFile& cluster_file, ServiceId service_id, NodeId self_id, const crypto::SecretKey& own_key,
        Observer& events);

  // ---- oversight.cpp: input
  Refusal on_vote(SlotId slot, Incarnation incarnation, Vote&& vote);
  Refusal keep_ahead(SlotId slot, Vote&& vote);
  void judge_ahead(Seq n);
  Refusal count(SlotId slot, Seq n, std::vector<Digest>&& replies);
  void on_closed(Seq n, VoteBook::Closing&& closing);
  void tell_difference(Seq n, const VoteBook::Closing* closing, const std::vector<Ballot::Candidate>& others);
  Refusal on_closings(NodeId from, const Closings& message);
  void mark_wrong(SlotId slot, Seq n);
  void presume_closed(Seq n);
  void learn_spread(Seq n, const Ballot& ballot, const VoteBook::Closing& closing);
  void apply(Seq n, const EpochChange& change);
  void apply(Seq n, const Join& join);
  void convict(Seq n, SlotId slot);
  void end_incarnation(SlotId slot);
  void advance_clock(Micros monotonic);
  // Carries out what the input since the last call calls for.
  void review();

  // ---- oversight_checkpoints.cpp
  Refusal on_exec_checkpoint(SlotId slot, Incarnation incarnation, const ExecCheckpoint& message);
  [[nodiscard]] Refusal admit_ahead(SlotId slot, Seq n, const Digest& root) const;
  void judge_roots_ahead(Seq n);
  void count_root(SlotId slot, Seq n, const Digest& root);
  void confirm_root(Seq n, const Digest& root);
  void on_root(Seq n, SlotMask dissenting);
  void mark_wrong_root(SlotId slot, Seq n);
  void presume_roots(Seq n);
  void on_subscribe(SlotId slot, Incarnation incarnation, Seq from);
  void raise_root(Seq n, std::optional<SlotId> slot);
  void raise_root_mismatch(Seq n);
  void tell_roots(Seq n, const ExecCheckpoints& words);
  void tell_wrong_root(SlotId slot, Seq n, const Digest& root);
  void end_root_sign(Seq n, ExecCheckpoints& words);
  void restart_root_signs();
  void watch_roots();
  [[nodiscard]] std::optional<Seq> late_root(SlotId slot) const;
  [[nodiscard]] bool owes_root(SlotId slot) const;

  // ---- oversight_signs.cpp
  void watch_channels();
  void watch_deadlines();
  void watch_debts();
  void watch_quiet();
  void raise(Sign sign, Seq n, std::optional<SlotId> slot);
  void open_episode(Sign sign, Seq n, std::optional<SlotId> slot);
  void report_diverged(Sign sign, Seq n, std::optional<SlotId> slot) const;
  void raise_mismatch(Seq n);
  void alarm_if_beyond_bound(Seq n, const Ballot& ballot);
  void alarm_beyond_bound(Seq n);
  void restart_signs();
  void update_episode();
  void send_wakes();
  bool ask_to_wake(SlotId slot, Sign sign, Seq n);
  void remember_delay();
  [[nodiscard]] bool sleeps(SlotId slot) const;
  [[nodiscard]] bool may_still_settle(SlotId slot) const;
  [[nodiscard]] std::optional<SlotId> overdue_slot(const Ballot& ballot) const;
  [[nodiscard]] bool requests_wait() const;
  [[nodiscard]] bool in_grace(SlotId slot) const;
  [[nodiscard]] bool in_trouble() const;
  [[nodiscard]] bool needs_more_votes() const;
  [[nodiscard]] Micros overdue_limit() const;

  // ---- oversight_rejuvenation.cpp
  void watch_rejuvenation();
  [[nodiscard]] bool rejuvenation_due() const;
  [[nodiscard]] SlotId stalest() const;
  [[nodiscard]] std::optional<Seq> stood_in_for() const;

  // ---- oversight_suspects.cpp
  struct Charge {
    Suspicion why;
    Seq n;
    SlotMask agreeing;
  };
  [[nodiscard]] std::optional<Charge> charge_against(SlotId slot) const;
  [[nodiscard]] bool prefer_unconvicted(SlotMask& agreeing) const;
  [[nodiscard]] bool spares(SlotId slot, const Charge& charge);
  void speak_about(SlotId slot);
  void propose_change();
  void propose_joins();
  [[nodiscard]] bool is_up_for_eviction(SlotId slot) const;
  [[nodiscard]] Micros quarantine_of(SlotId slot) const;
  Refusal on_suspect(const Suspect& suspect);
  Refusal on_join(const Join& join);

  // ---- small questions
  [[nodiscard]] SlotWatch& at(SlotId slot) { return slots[slot.value]; }
  [[nodiscard]] const SlotWatch& at(SlotId slot) const { return slots[slot.value]; }
  [[nodiscard]] bool passed(Micros since, Micros span) const { return now.value - since.value >= span.value; }
  // The agreed time by now, as far as this node can tell.
  [[nodiscard]] Micros agreed_now() const { return Micros{agreed_time.value + now.value - agreed_at.value}; }
  [[nodiscard]] SlotMask wrong() const;
  [[nodiscard]] SlotMask blamed() const;
  // Connected slots that agree on n and that this node has nothing against.
  [[nodiscard]] SlotMask standing(Seq n) const;
  void report(Event event) const;

  const crypto::ClusterFile& cluster;
  const ServiceId id;
  const NodeId self;
  const crypto::SecretKey& key;
  Observer& observer;

  const OversightSpans spans;

  SlotTable table;
  VoteBook book;
  ExecCheckpointBook roots;
  Seq presumed_through;  // stable and delivered
  SuspectBook suspects;
  std::map<Seq, VoteSet> closings;  // other nodes' words, for batches that are open here
  std::vector<SlotWatch> slots;     // by slot
  OversightOutput out;
  OversightStats stats;

  Micros now;  // counted by advance_clock()
  std::optional<Micros> last_tick;
  bool dirty = false;  // something happened that review() has to look at
  Micros epoch_since;
  // 8 times the usual microseconds between the first vote and the closing one. Nothing is learnt yet: the ceiling.
  std::int64_t spread_x8 = 8 * spans.overdue_ceiling.value / spans.overdue_factor;

  struct Episode {
    bool open = false;
    bool woke = false;  // this node signed a WAKE in it
    Sign sign{};
    Seq n;
    Epoch epoch;
    std::optional<SlotId> slot;  // that shows the sign, where one does
  };
  Episode episode;
  std::uint64_t open_signs = 0;   // ballots and checkpoints with sign_open
  std::optional<Seq> idle_watch;  // a closed batch that shows trouble: g+1 good slots have to agree on it

  std::optional<Seq> unanswered;  // a presumed batch of which slots do not give the answers

  Micros quiet_since;
  Seq quiet_mark;  // closed through here a while ago: who voted for it has caught up
  Micros quiet_mark_at;

  // Functions of the order, like the table.
  Micros agreed_time;  // of the last delivered batch
  Micros agreed_at;    // which came at this time
  ConvictionBook convictions;
  Micros fresh_since;  // agreed time of the last rejuvenation, or of the first batch
  std::uint64_t requests_since_fresh = 0;
  std::array<Seq, kSlotsMax> active_since{};

  std::optional<SlotId> rejuvenating;  // it is due, and this slot's turn

  std::optional<EpochChange> proposed;  // the last change handed out in this epoch
  Micros proposed_at;
  std::optional<Micros> convicted_since;
  std::optional<Micros> beyond_bound_at;  // said
};

}  // namespace zz::agreement
