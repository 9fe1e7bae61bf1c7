#pragma once

// ReplyQuestions: which requests are answered, but nobody told this node how (docs/protocol.md §8), and what slots say
// when they are asked. A part of ReplyBook; one thread, no IO.
//
// A batch below a stable checkpoint may be closed everywhere and open here: its votes went to this node before it was
// restarted, or to nobody, because the slots that are awake began with the state after it. Their session tables, which
// are part of that state, say how its requests were answered. A client's wish opens a question; every slot with a
// channel is asked, and asked again, at growing intervals, for as long as the client goes on wishing.
//
// Invariants:
//  1. What g+1 distinct slots say equally is the answer: one of them is correct, and executed the request or holds a
//     state that was certified.
//  2. Words of incarnations that are over do not count: forget_words() is called with every change of the slot table.
//  3. A client has at most client_window questions open, and a slot at most one word in each, the last.
//  4. A question is put once in Limits::pause at most, however often the client asks.

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "agreement/messages.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

class ReplyQuestions {
 public:
  struct Limits {
    std::uint32_t g = 1;
    std::uint32_t client_window = 256;
    Micros pause{200'000};    // between the first two times that slots are asked; doubled up to kPauseFactorMax
    Micros life{20'000'000};  // since the client asked last: more than twice the longest it waits before it asks again
  };
  static constexpr std::int64_t kPauseFactorMax = 8;
  static constexpr std::uint32_t kAskedInVain = 6;  // so often, over 4.6 s, without an answer: trouble

  explicit ReplyQuestions(const Limits& limits) : limits_(limits) {}

  // Reference `index` of batch n, of that client.
  struct Wish {
    Seq n;
    std::uint32_t index = 0;
    ClientId client;
    SessionId session;
    RequestNumber number;
  };
  // The client wants it. kQuota: it has too many questions open.
  Refusal open(const Wish& wish);
  // It is answered otherwise.
  void close(ClientId client, SessionId session, RequestNumber number);

  struct Heard {
    Refusal refusal = Refusal::kNone;  // kNotWanted, kDuplicate
    std::optional<Digest> settled;     // the answer; the question is closed
  };
  // What that slot's current incarnation says. Zero: it keeps the answer no longer; once g+1 say so the question is
  // closed without an answer.
  Heard hear(SlotId slot, ClientId client, SessionId session, RequestNumber number, const Digest& digest);
  // An incarnation may be over: all words are void, and slots are asked again.
  void forget_words();

  void tick(Micros now);
  // What is to be asked of every slot now.
  [[nodiscard]] std::vector<FetchReplies> take_due() { return std::exchange(due_, {}); }
  // As of the last tick: the lowest batch of a question that slots were asked in vain for long.
  [[nodiscard]] std::optional<Seq> in_vain() const { return in_vain_; }

 private:
  struct Question {
    Seq n;
    std::uint32_t index = 0;
    Micros wished_at;
    Micros ask_at;            // not before
    std::uint32_t asked = 0;  // times
    std::vector<std::pair<SlotId, Digest>> words;
  };
  using Number = std::pair<SessionId, RequestNumber>;

  void put(ClientId client, const Number& number, Question& question);

  Limits limits_;
  std::map<ClientId, std::map<Number, Question>> questions_;  // none is empty
  std::vector<FetchReplies> due_;
  std::optional<Seq> in_vain_;
  Micros now_;
  Micros reviewed_at_;
};

}  // namespace zz::agreement
