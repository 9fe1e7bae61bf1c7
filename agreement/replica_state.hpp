#pragma once

// Replica's inside: one struct, its functions in replica.cpp (votes and delivery), replica_propose.cpp (proposals, made
// and judged), replica_bodies.cpp (bodies asked for and given), replica_view.cpp (view changes) and replica_repair.cpp
// (what is said again, learned late or read back from the log). Included by these files only. Thread rule and
// invariants are Replica's.

#include <array>
#include <map>

#include "agreement/proposal_history.hpp"
#include "agreement/replica.hpp"
#include "agreement/replica_system_queue.hpp"
#include "agreement/request_table.hpp"
#include "agreement/slot_log.hpp"

namespace zz::agreement {

// What a peer may have sent to it for its FETCH-BODIES and FETCH-HEADERS, per body_timeout.
inline constexpr std::uint32_t kFetchesMax = 512;
inline constexpr std::uint64_t kFetchedBytesMax = 64u << 20;
// NEW-VIEWs and PROPOSEs of one peer that are checked, per progress interval: each may cost many signature checks.
inline constexpr std::uint32_t kDearChecks = 4;
// Slots said again in answer to one PROGRESS.
inline constexpr std::uint64_t kResentSlots = 32;

struct Replica::State {
  State(const ReplicaConfig& replica_config, Authority& signing, const SystemRules& system_rules,
        Observer& event_observer);

  // replica.cpp
  [[nodiscard]] NodeId primary() const { return authority.primary_of(view); }
  [[nodiscard]] bool is_primary() const { return primary() == config.self; }
  [[nodiscard]] Refusal check_sender(NodeId from) const;
  // Sender, view and window of a vote. While this node waits for a view, votes of that view are kept for it.
  [[nodiscard]] Refusal check(NodeId from, View v, Seq n);
  // Takes the slot as far as its votes go.
  void advance(Slot& slot);
  void stand_for(Slot& slot);
  [[nodiscard]] bool stands_for(const Slot& slot) const;
  [[nodiscard]] bool all_vouched(const Slot& slot) const;
  void advance_held();
  void deliver_ready();
  void deliver(Slot& slot);
  // Batch n, delivered and still remembered, or null.
  [[nodiscard]] const Delivery* find_recent(Seq n) const;
  void settle_delivery(const HeaderPtr& header, const Digest& digest, std::vector<RequestPtr> requests);
  void set_stable(const CertificatePtr& certificate);
  void follow_stable();
  void send(std::optional<NodeId> to, Body body) { out.send.push_back({to, std::move(body)}); }
  void report(EventKind kind, Seq n, std::string_view why = {});
  [[nodiscard]] std::uint64_t requests_ahead() const { return config.window * 3 / 4; }
  // Beyond it only system operations have a place: a reserve.
  [[nodiscard]] Seq requests_end() const { return Seq{log.low().value + requests_ahead()}; }

  // replica_propose.cpp
  Refusal pre_prepare(NodeId from, const PrePrepare& message);
  [[nodiscard]] Refusal judge(const PrePrepare& message);
  [[nodiscard]] bool near_clock(Micros time) const;
  // Within batch_bytes_max, or one op alone. Requires that no body is missing.
  [[nodiscard]] bool fits(const Slot& slot) const;
  void cut_batches();
  [[nodiscard]] bool cut_due(Seq n) const;
  [[nodiscard]] std::uint64_t ahead(Seq n) const { return n.value - log.low().value; }
  // False when nothing that waits can be proposed any more.
  bool cut(Seq n);
  void propose(SystemOp op);
  void ask_who_vouches();
  void speak_for_waiting();
  void speak_for_system();
  Refusal take_proposed(NodeId from, const Propose& message);
  Refusal vouch_query(NodeId from, const VouchQuery& message);
  Refusal vouched(NodeId from, const Vouched& message);

  // replica_bodies.cpp
  // The client's own copy came after the proposal.
  void arrived(Seq n, std::uint32_t index, const RequestPtr& request);
  void fetch(Slot& slot);
  void ask_next(Slot& slot);
  void ask(Slot& slot);
  void retry_fetches();
  bool go_on_fetching(NodeId from);
  void end_fetch(Slot& slot);
  Refusal spend(NodeId peer);
  Refusal spend_check(NodeId peer);
  Refusal give_bodies(NodeId to, const FetchBodies& message);
  Refusal take_bodies(NodeId from, const Bodies& message);
  bool place_body(const RequestPtr& request);
  bool place_body(Slot& slot, std::size_t index, const RequestPtr& request);
  Refusal give_headers(NodeId to, const FetchHeaders& message);
  Refusal take_headers(NodeId from, const Headers& message);
  [[nodiscard]] HeaderPtr find_header(const Digest& digest);
  void ask_headers();
  [[nodiscard]] std::optional<Digest> proposed_to_others(const Slot& slot) const;
  void ask_proposals();
  bool take_proposal(const HeaderPtr& header, const Digest& digest);

  // replica_view.cpp
  using Complaints = std::vector<StableCertificate::Part>;  // of one view
  void start_change(View wanted, Complaints complaints);
  void leave_view();
  void stash_slots();
  void doubt_held_clients();
  void doubt_refused_clients(const NewView& message, View last);
  Refusal view_change(NodeId from, const ViewChangePtr& message);
  void join_others();
  [[nodiscard]] std::uint32_t wanting(View at_least) const;
  void try_new_view();
  Refusal new_view(NodeId from, const NewViewPtr& message);
  void enter(const NewViewPtr& message);
  void open_chosen(const NewView& message);
  void fill_chosen(Slot& slot, const HeaderPtr& header);
  void watch_primary();
  [[nodiscard]] bool primary_may_be_shut();
  [[nodiscard]] bool is_behind() const;
  void complain(std::string_view why);
  [[nodiscard]] std::int64_t complaint_lasts() const;
  void review_complaints();

  // replica_repair.cpp
  void restore(const Recovered& recovered);
  void restore_slots(const Recovered& recovered);
  [[nodiscard]] Seq settled();
  void say_progress(std::optional<NodeId> to);
  Refusal progress(NodeId from, const Progress& message);
  void repair(NodeId to, const Progress& message);
  void resend(NodeId to, const Slot& slot);

  ReplicaConfig config;
  std::uint32_t nodes;  // n of the protocol
  Authority& authority;
  const SystemRules& rules;
  Observer& observer;

  View view;
  bool changing = false;             // waits for the NEW-VIEW of `view`
  ViewChangePtr own_change;          // when changing
  bool complains = false;            // it would leave `view`, and says so
  bool complains_by_period = false;  // as kSlow or kUnfair
  Micros complained_at;
  Seq delivered_then;
  Seq unheard_stable;            // a checkpoint that is stable here; the primary has yet to say that it is there
  Micros unheard_since;          // this node waits for that
  Seq top_then;                  // log.top() at the last tick
  NewViewPtr accepted_view;      // what began `view`; null in view 0 and while changing
  std::optional<View> last_led;  // left as its primary, and no other entered since
  bool learner = false;
  std::array<ViewChangePtr, kNodesMax> changes{};  // the newest of each node, this one's included
  std::map<Digest, HeaderPtr> wanted_headers;      // of chosen batches; null: not here yet
  Micros headers_asked_at;
  Micros proposals_sought_at;
  Seq stuck_at;        // `delivered` when it was looked at last
  Micros stuck_since;  // it has been that since

  RequestTable requests;
  SlotLog log;
  SystemQueue system;
  ProposalHistory history_of_votes;
  PrimaryWatch watch;

  Seq delivered;
  Micros delivered_time;
  Digest history;
  std::vector<Delivery> recent;  // the last window of them, [n % window]
  CertificatePtr newest_stable;  // at or above log.low(): this node may be behind

  Micros wall;
  bool ticked = false;
  Micros now;                  // monotonic
  bool refused_later = false;  // something of this view, because the window was shut

  std::uint32_t fetching = 0;  // slots that wait for an answer
  struct PeerState {
    // Its fetches since `budget_since`.
    Micros budget_since;
    std::uint32_t fetches = 0;
    std::uint64_t bytes = 0;
    // Its last PROGRESS.
    bool heard = false;
    bool fresh = true;  // the channel is new: what was under way is lost
    Progress progress;
    std::optional<Micros> repaired_at;
    std::uint32_t dear_checks = 0;  // since dear_since
    Micros dear_since;
  };
  std::array<PeerState, kNodesMax> peers{};
  std::size_t last_cut = 0;  // requests of the batch proposed last
  std::optional<Micros> queries_repeated_at;
  std::optional<Micros> progress_said_at;
  std::optional<Micros> waiting_seen_at;
  std::vector<PrimaryWatch::Head> waiting_heads;  // at waiting_seen_at
  std::vector<PrimaryWatch::Head> watched_heads;  // that the watch saw last
  std::vector<Digest> waiting_system;             // likewise

  ReplicaStats stats;
  ReplicaOutput out;
};

}  // namespace zz::agreement
