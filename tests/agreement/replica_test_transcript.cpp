// Conversations of the ordering core, as scripts with expected transcripts in testdata/replica_*.txt.
//
//   cluster f=1 [progress=1]                     a fresh cluster; PROGRESS is neither shown nor delivered without
//   progress=1 request client= session= number= op= to=0,1  the client's own message reaches these nodes
//   propose name=a from= to= n= after= client= session= numbers= op=
//                                                a proposal made by hand, agreed time `after` us past noon
//   vote kind=prepare|commit from= to= of=a      a vote made by hand for the proposal of that name
//   deliver [from=] [to=] [kind=PREPARE,COMMIT]  messages on the way arrive, first in, first out, until none fits
//   lose [from=] [to=] [kind=]                   messages on the way are lost
//   tick ms=                                     time passes at all nodes, up to so many milliseconds past noon
//   stable n=                                    the checkpoint n is stable, all nodes learn
//   restart node=                                the node ends and begins anew with its log
//   views                                        where each node is

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "base/bytes.hpp"
#include "tests/agreement/replica_cluster.hpp"
#include "tests/agreement/transcript.hpp"

namespace zz::agreement::testing {
namespace {

std::string brief(const Digest& digest) { return to_hex(digest.bytes).substr(0, 8); }

std::string describe(const Reference& r) {
  return std::to_string(r.client.value) + "/" + std::to_string(r.session.value) + "/" + std::to_string(r.number.value);
}

template <class List, class Describe>
std::string join_all(const List& list, const Describe& one) {
  std::string out = "[";
  for (const auto& item : list) out += (out.size() > 1 ? " " : "") + one(item);
  return out + "]";
}

struct Describer {
  std::string operator()(const PrePrepare& m) const {
    return "PRE-PREPARE " + ballot(m.view, m.header->n, m.digest) + " at noon+" +
           std::to_string(m.header->time.value - kNoon.value) + "us " + join_all(m.header->references, describe);
  }
  std::string operator()(const Prepare& m) const { return "PREPARE " + ballot(m.view, m.n, m.digest); }
  std::string operator()(const Commit& m) const { return "COMMIT " + ballot(m.view, m.n, m.digest); }
  std::string operator()(const FetchBodies& m) const { return "FETCH-BODIES " + join_all(m.wanted, describe); }
  std::string operator()(const Bodies& m) const {
    return "BODIES " + join_all(m.requests, [](const RequestPtr& r) {
             return describe(reference_of(*r)) + "=" + std::string(r->op.text());
           });
  }
  std::string operator()(const FetchHeaders& m) const { return "FETCH-HEADERS " + join_all(m.wanted, brief); }
  std::string operator()(const Headers& m) const {
    return "HEADERS " + join_all(m.headers, [](const HeaderPtr& h) { return brief(batch_digest(*h)); });
  }
  std::string operator()(const ViewChangePtr& m) const {
    return "VIEW-CHANGE v" + std::to_string(m->view.value) + " h" + std::to_string(stable_n(m->stable).value) + " P" +
           join_all(m->prepared, claim) + " Q" + join_all(m->pre_prepared, claim) + " shows" +
           join_all(m->complaints, [](const StableCertificate::Part& p) { return std::to_string(p.signer.value); });
  }
  std::string operator()(const NewViewPtr& m) const {
    return "NEW-VIEW v" + std::to_string(m->view.value) + " of " +
           join_all(m->proof, [](const ViewChangePtr& v) { return std::to_string(v->signer.value); }) + " from h" +
           std::to_string(m->start.value) + " " +
           join_all(m->chosen, [](const Digest& d) { return d.is_zero() ? "null" : brief(d); });
  }
  std::string operator()(const Progress& m) const {
    return "PROGRESS v" + std::to_string(m.view.value) + (m.changing ? " changing" : "") + " delivered " +
           std::to_string(m.delivered.value) + " stable " + std::to_string(m.stable.value);
  }
  std::string operator()(const VouchQuery& m) const { return "VOUCH-QUERY " + join_all(m.references, describe); }
  std::string operator()(const Vouched& m) const { return "VOUCHED " + join_all(m.references, describe); }
  template <class T>
  std::string operator()(const T&) const {
    return "something else";
  }
  static std::string claim(const Claim& c) {
    return "n" + std::to_string(c.n.value) + ":v" + std::to_string(c.view.value) + ":" + brief(c.digest);
  }
  static std::string ballot(View view, Seq n, const Digest& digest) {
    return "v" + std::to_string(view.value) + " n" + std::to_string(n.value) + " " + brief(digest);
  }
};

class Conversation {
 public:
  std::string act(const TranscriptCommand& command) {
    out_.str("");
    if (command.name == "cluster") {
      ReplicaConfig config;
      config.f = static_cast<std::uint32_t>(command.number("f"));
      cluster_ = std::make_unique<ReplicaCluster>(config);
      if (!command.has("progress")) {
        cluster_->pass = [](const Packet& packet) { return !std::holds_alternative<Progress>(packet.body); };
      }
      seen_.assign(cluster_->size(), 0);
      ms_ = 0;
    } else if (command.name == "request") {
      request(command);
    } else if (command.name == "propose") {
      propose(command);
    } else if (command.name == "vote") {
      vote(command);
    } else if (command.name == "deliver") {
      deliver(command);
    } else if (command.name == "lose") {
      std::erase_if(cluster_->wire, [&](const Packet& packet) {
        if (!meant(command, packet)) return false;
        out_ << packet.from.value << ">" << packet.to.value << " lost: " << std::visit(Describer{}, packet.body)
             << "\n";
        return true;
      });
    } else if (command.name == "tick") {
      while (ms_ < command.number("ms")) {
        ms_ = std::min(command.number("ms"), ms_ + 5);
        cluster_->tick(Micros{kNoon.value + ms_ * 1'000});
        gather();
      }
    } else if (command.name == "stable") {
      cluster_->set_stable(Seq{static_cast<std::uint64_t>(command.number("n"))});
      gather();
    } else if (command.name == "restart") {
      const auto node = static_cast<std::size_t>(command.number("node"));
      cluster_->restart(node);
      seen_[node] = 0;
      gather();
    } else if (command.name == "views") {
      for (std::size_t node = 0; node < cluster_->size(); ++node) {
        const Replica& replica = cluster_->at(node);
        out_ << node << ": " << (replica.changing() ? "waits for v" : "in v") << replica.view().value << ", delivered "
             << replica.last_delivered().value << "\n";
      }
    } else {
      ADD_FAILURE() << "no such command: " << command.name;
    }
    return out_.str();
  }

 private:
  void request(const TranscriptCommand& command) {
    const RequestPtr request = make_request(static_cast<std::uint32_t>(command.number("client")),
                                            static_cast<std::uint64_t>(command.number("session")),
                                            static_cast<std::uint64_t>(command.number("number")), command.text("op"));
    for (const std::int64_t node : command.numbers("to")) {
      const Refusal refusal = cluster_->at(static_cast<std::size_t>(node)).vouch(request);
      if (refusal != Refusal::kNone) out_ << node << " refuses: " << to_string(refusal) << "\n";
    }
    gather();
  }

  void propose(const TranscriptCommand& command) {
    std::vector<RequestPtr> requests;
    for (const std::int64_t number : command.numbers("numbers")) {
      requests.push_back(make_request(static_cast<std::uint32_t>(command.number("client")),
                                      static_cast<std::uint64_t>(command.number("session")),
                                      static_cast<std::uint64_t>(number), command.text("op")));
    }
    const PrePrepare p = make_proposal(static_cast<std::uint64_t>(command.number("n")), requests,
                                       Micros{kNoon.value + command.number("after")});
    proposals_[command.text("name")] = p;
    put(command, p);
  }

  void vote(const TranscriptCommand& command) {
    const PrePrepare& p = proposals_[command.text("of")];
    if (command.text("kind") == "prepare") put(command, Prepare{p.view, p.header->n, p.digest});
    if (command.text("kind") == "commit") put(command, Commit{p.view, p.header->n, p.digest});
  }

  void put(const TranscriptCommand& command, const Body& body) {
    const auto from = static_cast<std::uint16_t>(command.number("from"));
    for (const std::int64_t to : command.numbers("to")) {
      cluster_->wire.push_back({NodeId{from}, NodeId{static_cast<std::uint16_t>(to)}, body});
      out_ << from << ">" << to << " by hand: " << std::visit(Describer{}, body) << "\n";
    }
  }

  static bool meant(const TranscriptCommand& command, const Packet& packet) {
    const auto fits = [&](const char* key, NodeId node) {
      if (!command.has(key)) return true;
      const auto wanted = command.numbers(key);
      return std::find(wanted.begin(), wanted.end(), node.value) != wanted.end();
    };
    if (command.has("kind")) {
      const std::string text = std::visit(Describer{}, packet.body);
      if (("," + command.text("kind") + ",").find("," + text.substr(0, text.find(' ')) + ",") == std::string::npos) {
        return false;
      }
    }
    return fits("from", packet.from) && fits("to", packet.to);
  }

  void deliver(const TranscriptCommand& command) {
    while (true) {
      const auto at = std::find_if(cluster_->wire.begin(), cluster_->wire.end(),
                                   [&](const Packet& packet) { return meant(command, packet); });
      if (at == cluster_->wire.end()) return;
      const Packet packet = *at;
      cluster_->wire.erase(at);
      RefusalCounts before = cluster_->refusals[packet.to.value];
      cluster_->hand_over(packet);
      for (std::size_t i = 1; i < before.counts.size(); ++i) {
        if (cluster_->refusals[packet.to.value].counts[i] == before.counts[i]) continue;
        out_ << packet.to.value << " refuses: " << to_string(static_cast<Refusal>(i)) << ": " << packet.from.value
             << ">" << packet.to.value << " " << std::visit(Describer{}, packet.body) << "\n";
      }
      gather();
    }
  }

  // Whether this packet and those after it are one message to every other node.
  [[nodiscard]] bool said_to_all(std::size_t at) const {
    const std::deque<Packet>& wire = cluster_->wire;
    const std::string text = std::visit(Describer{}, wire[at].body);
    for (std::size_t i = 1; i + 1 < cluster_->size(); ++i) {
      if (at + i >= wire.size() || wire[at + i].to <= wire[at + i - 1].to) return false;
      if (std::visit(Describer{}, wire[at + i].body) != text) return false;
    }
    return true;
  }

  // Says what the nodes have to say: a message to all counts once.
  void gather() {
    for (std::size_t node = 0; node < cluster_->size(); ++node) {
      const std::size_t before = cluster_->wire.size();
      cluster_->collect(node);
      for (std::size_t i = before; i < cluster_->wire.size(); ++i) {
        const Packet& packet = cluster_->wire[i];
        const std::string text = std::visit(Describer{}, packet.body);
        const bool to_all = said_to_all(i);
        if (to_all) i += cluster_->size() - 2;
        out_ << node << ">" << (to_all ? "all" : std::to_string(packet.to.value)) << " " << text << "\n";
      }
      for (; seen_[node] < cluster_->delivered[node].size(); ++seen_[node]) {
        const Delivery& delivery = cluster_->delivered[node][seen_[node]];
        out_ << node << " delivers n" << delivery.header->n.value << " " << brief(delivery.digest) << " history "
             << brief(delivery.history) << " "
             << join_all(
                    delivery.requests,
                    [](const RequestPtr& r) { return describe(reference_of(*r)) + "=" + std::string(r->op.text()); })
             << "\n";
      }
    }
  }

  std::ostringstream out_;
  std::unique_ptr<ReplicaCluster> cluster_;
  std::vector<std::size_t> seen_;
  std::int64_t ms_ = 0;
  std::map<std::string, PrePrepare> proposals_;
};

class ReplicaTranscript : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Conversations, ReplicaTranscript,
                         ::testing::Values("normal_case", "late_request", "equivocation", "body_fetch", "view_change",
                                           "new_view_hole", "relay", "progress", "restart"),
                         [](const auto& tested) { return std::string(tested.param); });

TEST_P(ReplicaTranscript, GoesAsWritten) {
  Conversation conversation;
  play_transcript(std::string(ZZ_SOURCE_DIR) + "/tests/agreement/testdata/replica_" + GetParam() + ".txt",
                  [&](const TranscriptCommand& command) { return conversation.act(command); });
}

}  // namespace
}  // namespace zz::agreement::testing
