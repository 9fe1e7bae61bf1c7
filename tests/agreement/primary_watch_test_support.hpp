#pragma once

// What the tests of the primary watch share: a watch that is told by hand what there is to see, and one that sees a
// cluster's service.

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "agreement/primary_watch.hpp"

namespace zz::agreement::testing {

using Situation = PrimaryWatch::Situation;

inline constexpr std::int64_t kMs = 1'000;
inline constexpr std::int64_t kSecond = 1'000'000;
inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max() / 2;
inline constexpr std::int64_t kTick = 5 * kMs;
inline constexpr std::int64_t kBase = 500 * kMs;

inline PrimaryWatch::Head head_of(std::uint32_t client, std::uint64_t number = 1) {
  return {ClientId{client}, SessionId{1}, RequestNumber{number}};
}

// One watch, told by hand what there is to see.
class Hand {
 public:
  explicit Hand(PrimaryWatch::Config config = {}) : watch(config) {
    watch.entered(View{});
    look(0);
  }
  // The first complaint within `span`, ticking on.
  std::optional<Complaint> look(std::int64_t span) {
    const std::int64_t end = now + span;
    while (true) {
      if (const auto complaint = watch.tick(Micros{now}, seen)) return complaint;
      if (now >= end) return std::nullopt;
      now += kTick;
    }
  }
  // How long it takes to the first complaint, which is `expected`; kNever within 10 minutes.
  std::int64_t until(Complaint expected) {
    const std::int64_t start = now;
    const auto complaint = look(600 * kSecond);
    if (!complaint) return kNever;
    EXPECT_EQ(*complaint, expected) << to_string(*complaint);
    return now - start;
  }
  void deliver(std::uint64_t count = 1) {
    seen.delivered = Seq{seen.delivered.value + count};
    seen.position += count;
  }
  // A stretch of service without anything to complain about.
  void steady(std::int64_t span) {
    for (const std::int64_t end = now + span; now < end;) {
      deliver();
      ASSERT_EQ(look(100 * kMs), std::nullopt);
    }
  }
  void go_on() {
    watch.left(View{++view});
    watch.entered(View{view});
  }

  PrimaryWatch watch;
  Situation seen;
  std::int64_t now = 0;
  std::uint64_t view = 0;
};

// Clients with one request outstanding each. What waits for the primary, for how long, is the test's choice.
class Play {
 public:
  explicit Play(std::size_t clients, PrimaryWatch::Config config = {}) : watch(config), clients_(clients) {
    for (Client& client : clients_) client.due = 0;
    watch.entered(View{});
  }

  std::function<std::int64_t(std::size_t)> wait = [](std::size_t) { return 1 * kMs; };  // of a client's request
  std::function<std::int64_t()> flight = [] { return 2 * kMs; };                        // proposal to delivery
  std::function<std::int64_t()> think = [] { return 0; };
  std::function<void(Complaint)> on_complaint = [](Complaint) {};
  std::int64_t tick = kTick;
  bool silent = false;  // nothing is proposed nor delivered

  void run(std::int64_t span) {
    for (const std::int64_t end = now + span; now < end;) step();
  }
  [[nodiscard]] std::size_t count(Complaint complaint) const {
    return static_cast<std::size_t>(std::count(complaints.begin(), complaints.end(), complaint));
  }

  PrimaryWatch watch;
  std::int64_t now = 0;
  std::uint64_t view = 0;
  Situation seen;
  std::vector<Complaint> complaints;
  std::vector<std::int64_t> complained_at;

 private:
  struct Client {
    std::uint64_t number = 0;
    bool waits = false;
    bool flies = false;
    std::int64_t due = 0;  // of the next event: sends, or is proposed
  };
  struct Batch {
    std::int64_t due;
    std::vector<std::size_t> clients;
  };

  void step() {
    now += tick;
    Batch batch{now + flight(), {}};
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      Client& client = clients_[i];
      if (!client.waits && !client.flies && now >= client.due) {
        client.waits = true;
        ++client.number;
        client.due = client.due + wait(i) <= now - tick ? now - tick + wait(i) : client.due + wait(i);
      }
      if (client.waits && now >= client.due && !silent) {
        client.waits = false;
        client.flies = true;
        batch.clients.push_back(i);
      }
    }
    if (!batch.clients.empty()) flying_.push_back(std::move(batch));
    while (!flying_.empty() && flying_.front().due <= now && !silent) {
      seen.delivered = seen.delivered.next();
      seen.position += flying_.front().clients.size();
      for (const std::size_t i : flying_.front().clients) {
        clients_[i].flies = false;
        clients_[i].due = flying_.front().due + think();
        watch.ordered(ClientId{static_cast<std::uint32_t>(i)});
      }
      flying_.pop_front();
    }
    seen.in_flight = flying_.size();
    seen.heads.clear();
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      if (clients_[i].waits) seen.heads.push_back(head_of(static_cast<std::uint32_t>(i), clients_[i].number));
    }
    const auto complaint = watch.tick(Micros{now}, seen);
    if (!complaint) return;
    complaints.push_back(*complaint);
    complained_at.push_back(now);
    watch.left(View{++view});
    watch.entered(View{view});
    on_complaint(*complaint);
  }

  std::vector<Client> clients_;
  std::deque<Batch> flying_;
};

}  // namespace zz::agreement::testing
