// Conversations about checkpoints (docs/protocol.md §6 alone), as scripts with expected transcripts in
// testdata/checkpoints_*.txt. Each node is a CheckpointBook, a CatchUp and an order; who votes and what orders is not
// part of it.
//
//   cluster f=1 interval=4             a fresh cluster; every fourth batch is a checkpoint
//   order at=0,1 to= [other=1]         the batches up to this one are delivered at these nodes; or those of a fork
//   close at=0,1 to= [other=1]         they are closed there, by the usual votes; or by others
//   sign by= to=0,1 n= [other=1] [closed=other]  a CHECKPOINT by hand, of what the order, or the fork, makes of n
//   prove by=0,1,2 from= to= n= [other=1]        STABLE by hand, with these signatures
//   again from= to=                    what a node has signed and is not stable is said again
//   stable from= to=                   its newest stable certificate
//   deliver [from=] [to=] [kind=CHECKPOINT,BATCH]  messages on the way arrive, first in, first out, until none fits
//   lose [from=] [to=] [kind=]         messages on the way are lost
//   tick ms=                           time passes at all nodes, up to so many milliseconds
//   nodes                              where each of them is

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <sstream>

#include "agreement/catch_up.hpp"
#include "agreement/checkpoint_book.hpp"
#include "agreement/order_log.hpp"
#include "base/bytes.hpp"
#include "oversight_test_support.hpp"
#include "tests/agreement/transcript.hpp"

namespace zz::agreement::testing {
namespace {

constexpr ServiceId kService{0};

std::string brief(const Digest& digest) { return to_hex(digest.bytes).substr(0, 8); }

std::string describe(const CheckpointState& state) {
  return "n" + std::to_string(state.n.value) + " H " + brief(state.history) + " R " + brief(state.results);
}

std::string describe(const StableCertificate& certificate) {
  std::string out = describe(certificate.state) + " of";
  for (const auto& part : certificate.parts) out += " " + std::to_string(part.signer.value);
  return out;
}

struct Describer {
  std::string operator()(const Checkpoint& m) const { return "CHECKPOINT " + describe(m.state); }
  std::string operator()(const Stable& m) const {
    return "STABLE " + (m.certificate ? describe(*m.certificate) : "nothing");
  }
  std::string operator()(const FetchOrder& m) const { return "FETCH-ORDER from n" + std::to_string(m.from.value); }
  std::string operator()(const OrderProof& m) const {
    return "ORDER-PROOF from n" + std::to_string(m.from.value) + " " + std::to_string(m.digests.size()) +
           " digests to " + describe(*m.certificate);
  }
  std::string operator()(const Batch& m) const {
    return "BATCH n" + std::to_string(m.header->n.value) + " " + brief(m.digest);
  }
  template <class T>
  std::string operator()(const T&) const {
    return "something else";
  }
};

struct Packet {
  NodeId from;
  NodeId to;
  Body body;
};

struct Node final : Observer {
  Node(const Parties& parties, std::uint32_t f, NodeId id, const CheckpointRules& rules, std::ostringstream& text)
      : self(id),
        out(text),
        authority(parties.cluster, kService, id, parties.node_keys[id.value]),
        log(1u << 30),
        book(rules, kService, id, f, authority, *this),
        catch_up(id, 3 * f + 1, Micros{500'000}, authority) {}
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  void on_event(const Event& event) override {
    if (event.kind != EventKind::kConflict) return;
    out << self.value << " has evidence at n" << event.n.value << ": " << event.why << "\n";
  }
  void deliver(const Delivery& batch) {
    history = history_digest(history, batch.digest);
    log.append(batch);
    // What executors say of the state is not part of these conversations.
    if (book.delivered(batch.header->n, batch.requests.size(), 1, history, Digest{})) {
      book.settled(batch.header->n, Digest{});
    }
  }

  NodeId self;
  std::ostringstream& out;
  Authority authority;
  OrderLog log;
  CheckpointBook book;
  CatchUp catch_up;
  Digest history;
};

class Conversation {
 public:
  std::string act(const TranscriptCommand& command) {
    out_.str("");
    if (command.name == "cluster") {
      start(command);
    } else if (command.name == "order") {
      for (Node* node : nodes_of(command, "at")) {
        while (node->log.last().value < unsigned_of(command, "to")) {
          node->deliver(batch(node->log.last().value + 1, command.has("other")));
        }
        settle(*node);
      }
    } else if (command.name == "close") {
      for (Node* node : nodes_of(command, "at")) {
        while (node->book.results_through().value < unsigned_of(command, "to")) {
          const Seq n = node->book.results_through().next();
          node->book.closed(n, vote(n.value, command.has("other")));
        }
        settle(*node);
      }
    } else if (command.name == "sign") {
      const NodeId by = nodes_of(command, "by")[0]->self;
      for (const Node* to : nodes_of(command, "to")) put(by, to->self, checkpoint(by, state(command)));
    } else if (command.name == "prove") {
      auto certificate = std::make_shared<StableCertificate>();
      certificate->state = state(command);
      for (const Node* by : nodes_of(command, "by")) {
        certificate->parts.push_back({by->self, checkpoint(by->self, certificate->state).signature});
      }
      for (const Node* to : nodes_of(command, "to"))
        put(nodes_of(command, "from")[0]->self, to->self, Stable{certificate});
    } else if (command.name == "again" || command.name == "stable") {
      const Node& from = *nodes_of(command, "from")[0];
      for (const Node* to : nodes_of(command, "to")) {
        if (command.name == "stable") {
          put(from.self, to->self, Stable{from.book.stable()});
        } else {
          for (const Checkpoint& mine : from.book.own()) put(from.self, to->self, mine);
        }
      }
    } else if (command.name == "deliver") {
      deliver(command);
    } else if (command.name == "lose") {
      std::erase_if(wire_, [&](const Packet& packet) {
        if (!meant(command, packet)) return false;
        out_ << line(packet) << " lost\n";
        return true;
      });
    } else if (command.name == "tick") {
      for (; ms_ < command.number("ms"); ms_ += 5) {
        for (const auto& node : nodes_) {
          node->catch_up.tick(Micros{(ms_ + 5) * 1'000});
          settle(*node);
        }
      }
    } else if (command.name == "nodes") {
      for (const auto& node : nodes_) {
        out_ << node->self.value << ": delivered " << node->log.last().value << ", closed "
             << node->book.results_through().value << ", stable " << stable_n(node->book.stable()).value << "\n";
      }
    } else {
      ADD_FAILURE() << "no such command: " << command.name;
    }
    return out_.str();
  }

 private:
  void start(const TranscriptCommand& command) {
    const auto f = static_cast<std::uint32_t>(command.number("f"));
    CheckpointRules rules;
    rules.batches = static_cast<std::uint32_t>(command.number("interval"));
    nodes_.clear();
    wire_.clear();
    ms_ = 0;
    parties_ = std::make_unique<Parties>(f, 1);
    for (std::uint16_t i = 0; i < parties_->cluster.n(); ++i) {
      nodes_.push_back(std::make_unique<Node>(*parties_, f, NodeId{i}, rules, out_));
    }
  }

  static std::uint64_t unsigned_of(const TranscriptCommand& command, const std::string& key) {
    return static_cast<std::uint64_t>(command.number(key));
  }
  std::vector<Node*> nodes_of(const TranscriptCommand& command, const std::string& key) {
    std::vector<Node*> out;
    for (const std::int64_t node : command.numbers(key)) out.push_back(nodes_.at(static_cast<std::size_t>(node)).get());
    return out;
  }

  static Delivery batch(std::uint64_t n, bool other) {
    auto header = std::make_shared<BatchHeader>();
    header->service = kService;
    header->n = Seq{n};
    header->time = Micros{static_cast<std::int64_t>(2 * n + (other ? 1 : 0))};
    Delivery out;
    out.digest = batch_digest(*header);
    out.header = std::move(header);
    return out;
  }
  static Digest vote(std::uint64_t n, bool other) {
    return reply_digest(as_bytes((other ? "other vote " : "vote ") + std::to_string(n)));
  }
  static CheckpointState state(const TranscriptCommand& command) {
    CheckpointState out;
    out.n = Seq{unsigned_of(command, "n")};
    for (std::uint64_t n = 1; n <= out.n.value; ++n) {
      out.history = history_digest(out.history, batch(n, command.has("other")).digest);
      out.results = results_digest(out.results, vote(n, command.has("closed")));
    }
    return out;
  }
  Checkpoint checkpoint(NodeId by, const CheckpointState& said) {
    Checkpoint message;
    message.state = said;
    nodes_[by.value]->authority.sign(message);
    return message;
  }

  static std::string line(const Packet& packet) {
    return std::to_string(packet.from.value) + ">" + std::to_string(packet.to.value) + " " +
           std::visit(Describer{}, packet.body);
  }
  void put(NodeId from, NodeId to, Body body) {
    wire_.push_back({from, to, std::move(body)});
    out_ << line(wire_.back()) << "\n";
  }

  static bool meant(const TranscriptCommand& command, const Packet& packet) {
    const auto fits = [&](const char* key, NodeId node) {
      if (!command.has(key)) return true;
      const auto wanted = command.numbers(key);
      return std::find(wanted.begin(), wanted.end(), node.value) != wanted.end();
    };
    const std::string text = std::visit(Describer{}, packet.body);
    const std::string kind = "," + text.substr(0, text.find(' ')) + ",";
    const bool wanted = !command.has("kind") || ("," + command.text("kind") + ",").find(kind) != std::string::npos;
    return wanted && fits("from", packet.from) && fits("to", packet.to);
  }

  void deliver(const TranscriptCommand& command) {
    while (true) {
      const auto at = std::find_if(wire_.begin(), wire_.end(), [&](const Packet& p) { return meant(command, p); });
      if (at == wire_.end()) return;
      const Packet packet = *at;
      wire_.erase(at);
      const Refusal refusal = hand_over(packet);
      if (refusal != Refusal::kNone) {
        out_ << packet.to.value << " refuses: " << to_string(refusal) << ": " << line(packet) << "\n";
      }
      settle(*nodes_[packet.to.value]);
    }
  }

  // As ServiceInstance does.
  Refusal hand_over(const Packet& packet) {
    Node& node = *nodes_[packet.to.value];
    if (const auto* m = std::get_if<Checkpoint>(&packet.body)) return node.book.step(packet.from, *m);
    if (const auto* m = std::get_if<Stable>(&packet.body)) return node.book.step(m->certificate);
    if (const auto* m = std::get_if<Batch>(&packet.body)) return node.catch_up.step(packet.from, *m);
    if (const auto* m = std::get_if<FetchOrder>(&packet.body)) {
      for (Body& body : answer_fetch_order(node.log, node.book, *m, kAnswerBytesMax)) {
        put(node.self, packet.from, std::move(body));
      }
      return Refusal::kNone;
    }
    const auto& proof = std::get<OrderProof>(packet.body);
    const Refusal refusal = node.catch_up.step(packet.from, proof);
    if (refusal == Refusal::kNone) node.book.keep(proof.certificate);
    if (refusal == Refusal::kConflict) node.book.contradicted(packet.from, proof.from);
    return refusal;
  }

  // What comes out of a node.
  void settle(Node& node) {
    CheckpointOutput out = node.book.take_output();
    for (const Checkpoint& message : out.send) {
      for (const auto& other : nodes_) {
        if (other->self != node.self) wire_.push_back({node.self, other->self, message});
      }
      out_ << node.self.value << ">all " << Describer{}(message) << "\n";
    }
    if (out.stable) out_ << node.self.value << " holds stable " << describe(*out.stable) << "\n";
    node.catch_up.at(node.log.last(), node.history, stable_n(node.book.stable()));
    CatchUpOutput caught = node.catch_up.take_output();
    for (const auto& [to, wish] : caught.ask) put(node.self, to, wish);
    for (const Batch& one : caught.batches) {
      Delivery delivery;
      delivery.header = one.header;
      delivery.digest = one.digest;
      delivery.requests = one.requests;
      node.deliver(delivery);
      out_ << node.self.value << " delivers n" << one.header->n.value << " " << brief(one.digest) << "\n";
    }
    if (!caught.batches.empty()) settle(node);
  }

  std::ostringstream out_;
  std::unique_ptr<Parties> parties_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::deque<Packet> wire_;
  std::int64_t ms_ = 0;
};

class CheckpointTranscript : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Conversations, CheckpointTranscript,
                         ::testing::Values("stable", "lost", "catch_up", "liar", "fork"),
                         [](const auto& tested) { return std::string(tested.param); });

TEST_P(CheckpointTranscript, GoesAsWritten) {
  Conversation conversation;
  play_transcript(std::string(ZZ_SOURCE_DIR) + "/tests/agreement/testdata/checkpoints_" + GetParam() + ".txt",
                  [&](const TranscriptCommand& command) { return conversation.act(command); });
}

}  // namespace
}  // namespace zz::agreement::testing
