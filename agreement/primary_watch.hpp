#pragma once

// PrimaryWatch: when a node has waited long enough for the primary (docs/protocol.md §7; Clement et al., Aardvark, NSDI
// 2009 §4.1 for the expectations). It only says "leave this view, because ..."; Replica does it.
//
// One thread; time is handed in (monotonic); no IO. Memory: a record per client that was active in the last period, is
// owed something by the primary or made this node complain; clients come from this node's own requests and from the
// order, so there are as many as the cluster has.
//
// Ages are taken on a clock of its own, which stands still while `blocked` (in a view) and goes on by at most base / 2
// per tick, so that what a stopped or starved process slept through is not held against the primary. A *wait* is the
// time for which a client's oldest unclaimed request was seen unchanged.
//
// Reasons, each of which bounds what a faulty primary can do and none of which fires without cause:
//  - kSilent: a wait, or a time in which proposals are here and nothing is delivered, reached the timeout; or a system
//    operation waited for four of them. The timeout is `base`, doubled with each view left in a row before it had a
//    steady stretch (2 * base with deliveries), up to `max`, and halved by each steady stretch in which no wait was
//    longer than half of the lower timeout. So it goes back to base, and not below what the network needs.
//  - kHeld: a proposal that this node cannot stand for (bodies missing, time out of bounds) is held for body_timeout.
//  - kSlow: it keeps being slow. A period (2 * base) with deliveries is slow when the mean wait of the middle client
//    exceeds the *usual* one, and its waits made up a quarter of the period. Usual is the greatest of base / 10, eight
//    times the best period of the last eight views, and four times the mean time from proposal to delivery here (which
//    rises with the network's delays and with load, and which a primary stretches by leaving gaps; those count
//    as waits). A slow period weighs three good ones, and three in a row are too many: so one outage, however long, is
//    no reason once it is over, and whoever is slow for more than a quarter of the time is found out. Each complaint
//    doubles what is tolerated, 32 good periods halve it, so a correct primary is left for it a logarithmic number of
//    times at most.
//  - kUnfair: one client's waits, in periods in which others were served, exceed what is fair by 2 * base in all. Fair
//    is, each time that it is served, the greatest of base / 10, eight times the middle client's mean wait, and four
//    times the time to delivery; short waits make up for long ones. A primary that takes clients in turn treats them
//    alike, and each is counted by its oldest request only, whatever it has outstanding. How seldom it asks does not
//    matter; one period alone is not enough, so that no outage is mistaken for it.
//  - kNoNewView: 2f+1 nodes want the view and its NEW-VIEW does not come within the timeout.
//
// A client that makes this node complain may itself be the cause (it sends to this node and not to the primary). Each
// kSilent or kUnfair complaint is a strike for the clients it is made for. Being ordered wipes them out, but for those
// made while others were served (their cause is not the whole system): of these, one each 64 * base. At `nodes` strikes
// the client arms no timer for 64 * base, and after each further strike for twice as long, so a hostile client and f
// faulty nodes cannot keep the views changing, and an innocent one is heard again. A system operation that others may
// not find due is treated alike.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "agreement/messages.hpp"

namespace zz::agreement {

enum class Complaint : std::uint8_t { kSilent, kHeld, kSlow, kUnfair, kNoNewView };
std::string_view to_string(Complaint complaint);

class PrimaryWatch {
 public:
  struct Config {
    std::uint32_t nodes = 4;
    Micros base{500'000};
    Micros max{60'000'000};
    Micros body_timeout{500'000};
  };
  // The oldest unordered, unclaimed request of a client.
  struct Head {
    ClientId client;
    SessionId session;
    RequestNumber number;
    auto operator<=>(const Head&) const = default;
  };
  // What Replica sees at a tick.
  struct Situation {
    bool primary = false;  // this node is the primary: of itself it complains only when proposals are not delivered
    bool blocked = false;  // no proposal can come: the window is shut (back-pressure), or this node lags or learns
    bool excused = false;  // the primary may have a reason to wait: not held against it as kSlow or kUnfair
    Seq delivered;         // last
    std::uint64_t position = 0;   // requests ordered so far
    std::uint64_t in_flight = 0;  // proposals here for delivered + 1, + 2, ... without a gap
    bool gap = false;             // a proposal is here, and not the one for delivered + 1
    bool system_waits = false;    // a system operation waits to be proposed
    std::optional<Seq> held;      // lowest n whose proposal this node cannot stand for
    std::vector<Head> heads;      // ascending by client
    // Per head, or empty: too few other nodes vouch for it to leave the view for its sake. It may be the client's
    // fault, so kSilent and kUnfair pass over it while it waits. Waits that ended count for kSlow and kUnfair: the
    // primary had it.
    std::vector<bool> alone;
    // Clients whose head of the last tick is gone: neither proposed nor ordered, but given up for later ones of the
    // client. What it waited alone is not the primary's doing.
    std::vector<ClientId> given_up;
  };

  explicit PrimaryWatch(const Config& config);

  // In `view` from now on; timers begin anew.
  void entered(View view);
  // VIEW-CHANGE for `view` sent; no complaint until backed().
  void left(View view);
  // 2f+1 nodes (this one among them) want the view that was left() for: its NEW-VIEW is due within the timeout.
  void backed();

  // The reason to go to the next view now. Fires at most once until the next entered() or left().
  std::optional<Complaint> tick(Micros now, const Situation& situation);

  [[nodiscard]] Micros timeout() const { return timeout_at(doublings_); }

  // Requests of this client are delivered; once for a run of them is enough.
  void ordered(ClientId client);

 private:
  using Span = std::int64_t;  // microseconds on the watch's clock
  enum class Phase : std::uint8_t { kIn, kLeft, kBacked };

  // Something that waits for the primary, again and again.
  struct Wait {
    bool waits = false;
    Span since = 0;
    Span seen = 0;  // last
    Span inexcusable = 0;
    // In this period, and inexcusable:
    Span in_period = 0;
    Span sum = 0;  // of the waits that ended, with what of them lay in earlier periods
    std::uint32_t ended = 0;

    [[nodiscard]] Span age() const { return waits ? seen - since : 0; }
    [[nodiscard]] Span mean() const { return ended == 0 ? 0 : sum / ended; }
    void sight(Span now, bool excused = false);
    void end();
    void drop();  // as if it had not been
    void begin_period() { in_period = sum = ended = 0; }
  };
  struct Strikes {
    std::uint32_t count = 0;
    Span at = 0;           // the last one, or the last one forgiven
    bool lasting = false;  // some were made while others were served
  };
  // By how much a client has waited for longer than is fair, in periods in which others were served.
  struct Account {
    Span excess = 0;
    std::uint64_t ordered = 0;  // requests of anybody, since there is some
    std::uint32_t periods = 0;  // likewise
  };
  struct Client {
    ClientId id;
    Wait wait;
    Head head;                 // that it waits with
    bool alone = false;        // it does
    std::uint32_t served = 0;  // in this period
    Account account;
    Strikes strikes;
  };

  [[nodiscard]] Micros timeout_at(std::uint32_t doublings) const;
  [[nodiscard]] bool muted(const Strikes& strikes) const;
  [[nodiscard]] bool counts(const Client& client) const { return !client.alone && !muted(client.strikes); }
  void strike(Strikes& strikes) const;
  void pardon(Strikes& strikes) const;
  Client& client_of(ClientId id);

  void close_view();
  void begin_anew();
  void begin_period();
  void advance(Micros now, const Situation& situation);
  void observe(const Situation& situation);
  void observe_heads(std::span<const Head> heads, const Situation& situation);
  void end_wait(Client& client);
  [[nodiscard]] bool silent();
  [[nodiscard]] std::optional<Complaint> judge_period(const Situation& situation);
  [[nodiscard]] std::optional<Span> middle_wait() const;
  [[nodiscard]] bool slow(Span middle, Span in_flight);
  [[nodiscard]] bool unfair(Span middle, Span in_flight, std::uint64_t ordered);
  void come_down();

  Config config_;
  View view_;
  Phase phase_ = Phase::kIn;
  bool fired_ = false;
  std::uint32_t doublings_ = 0;

  std::optional<Micros> last_tick_;
  Span clock_ = 0;
  Span backed_at_ = 0;
  std::vector<Client> clients_;  // ascending
  std::size_t last_client_ = 0;  // found last: the order comes in runs of one client
  Strikes system_strikes_;

  // Of this view:
  bool steady_ = false;           // it had a steady stretch
  std::optional<Seq> delivered_;  // at the last tick
  std::optional<Span> progress_;  // the last delivery
  Wait delivery_;                 // something is proposed or a system operation waits, and nothing is delivered
  Wait system_;                   // a system operation waits
  Wait gap_;
  std::optional<Seq> held_;
  Span held_since_ = 0;

  // Of this stretch:
  Span stretch_since_ = 0;
  bool stretch_delivered_ = false;
  Span longest_ = 0;  // wait for the primary or for a delivery

  // Of this period:
  Span period_since_ = 0;
  Span in_flight_ = 0;  // the time of all proposals in flight
  std::uint64_t batches_ = 0;
  std::uint64_t position_ = 0;  // at its start

  std::uint32_t slowness_ = 0;   // slow periods of this view, less the good ones
  std::uint32_t tolerance_ = 0;  // doublings of what is usual
  std::uint32_t good_periods_ = 0;
  std::optional<Span> best_;                      // middle wait of a period of this view
  std::array<std::optional<Span>, 8> best_of_{};  // of the views before
  std::size_t next_best_ = 0;
};

}  // namespace zz::agreement
