#include "agreement/reply_questions.hpp"

#include <algorithm>

namespace zz::agreement {

void ReplyQuestions::put(ClientId client, const Number& number, Question& question) {
  const std::int64_t factor = std::min(std::int64_t{1} << std::min(question.asked, 30u), kPauseFactorMax);
  question.ask_at = Micros{now_.value + factor * limits_.pause.value};
  ++question.asked;
  if (due_.empty() || due_.back().n != question.n) due_.push_back(FetchReplies{question.n, {}, true});
  due_.back().items.push_back({question.index, client, number.first, number.second});
}

Refusal ReplyQuestions::open(const Wish& wish) {
  auto& own = questions_[wish.client];
  const Number number{wish.session, wish.number};
  const auto known = own.find(number);
  if (known != own.end()) {
    known->second.wished_at = now_;
    return Refusal::kNone;
  }
  if (own.size() >= limits_.client_window) return Refusal::kQuota;
  Question& question = own[number];
  question.n = wish.n;
  question.index = wish.index;
  question.wished_at = now_;
  put(wish.client, number, question);
  return Refusal::kNone;
}

void ReplyQuestions::close(ClientId client, SessionId session, RequestNumber number) {
  const auto own = questions_.find(client);
  if (own == questions_.end()) return;
  own->second.erase({session, number});
  if (own->second.empty()) questions_.erase(own);
}

ReplyQuestions::Heard ReplyQuestions::hear(SlotId slot, ClientId client, SessionId session, RequestNumber number,
                                           const Digest& digest) {
  const auto own = questions_.find(client);
  if (own == questions_.end()) return {Refusal::kNotWanted, std::nullopt};
  const auto found = own->second.find({session, number});
  if (found == own->second.end()) return {Refusal::kNotWanted, std::nullopt};
  auto& words = found->second.words;
  const auto said = std::find_if(words.begin(), words.end(), [slot](const auto& word) { return word.first == slot; });
  if (said == words.end()) {
    words.emplace_back(slot, digest);
  } else if (said->second == digest) {
    return {Refusal::kDuplicate, std::nullopt};
  } else {
    said->second = digest;  // a session may be evicted between two questions
  }
  const auto equal = std::count_if(words.begin(), words.end(), [&](const auto& word) { return word.second == digest; });
  if (equal <= limits_.g) return {};
  close(client, session, number);
  if (digest.is_zero()) return {};
  return {Refusal::kNone, digest};
}

void ReplyQuestions::forget_words() {
  for (auto& [client, own] : questions_) {
    for (auto& [number, question] : own) {
      question.words.clear();
      question.ask_at = now_;
    }
  }
}

void ReplyQuestions::tick(Micros now) {
  now_ = now;
  if (now.value - reviewed_at_.value < limits_.pause.value) return;
  reviewed_at_ = now;
  in_vain_.reset();
  for (auto own = questions_.begin(); own != questions_.end();) {
    std::erase_if(own->second,
                  [&](const auto& entry) { return now.value - entry.second.wished_at.value > limits_.life.value; });
    for (auto& [number, question] : own->second) {
      if (question.asked >= kAskedInVain && (!in_vain_ || question.n < *in_vain_)) in_vain_ = question.n;
      if (now >= question.ask_at) put(own->first, number, question);
    }
    own = own->second.empty() ? questions_.erase(own) : std::next(own);
  }
}

}  // namespace zz::agreement
