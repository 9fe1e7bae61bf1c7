// What encoding and decoding cost, per message and per list entry, for the kinds on the path of a request.
//   build/release/bin/codec_bench [ENTRIES]      (default 250, an ordinary batch under load)

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "agreement/codec.hpp"
#include "tests/agreement/random_messages.hpp"

namespace zz::agreement {
namespace {

using Clock = std::chrono::steady_clock;

// Nanoseconds per call: the best of five groups, since anything above the best is somebody else's work.
template <class Call>
double nanoseconds(Call call) {
  constexpr int kCalls = 300;
  double best = 1e18;
  for (int group = 0; group < 5; ++group) {
    const auto start = Clock::now();
    for (int i = 0; i < kCalls; ++i) call();
    const std::chrono::duration<double, std::nano> taken = Clock::now() - start;
    best = std::min(best, taken.count() / kCalls);
  }
  return best;
}

void print(const char* name, const Message& message, std::size_t entries) {
  const SharedBytes bytes = encode(message);
  std::size_t sum = 0;
  const double out = nanoseconds([&] { sum += encode(message).size(); });
  const double in = nanoseconds([&] { sum += decode(bytes, CodecLimits{}).message.body.index(); });
  if (sum == 0) std::abort();
  const auto per = static_cast<double>(entries);
  std::printf("%-18s %8zu bytes   encode %9.0f ns (%6.1f per entry)   decode %9.0f ns (%6.1f per entry)\n", name,
              bytes.size(), out, out / per, in, in / per);
}

std::vector<Digest> digests(std::size_t entries) {
  std::vector<Digest> out(entries);
  for (std::size_t i = 0; i < entries; ++i) out[i].bytes[0] = static_cast<std::uint8_t>(i);
  return out;
}

int run(std::size_t entries) {
  const ServiceId service{};
  const SharedBytes op = SharedBytes::copy(std::string_view("put k 12"));
  const SharedBytes reply = SharedBytes::copy(std::string_view("ok"));
  auto header = std::make_shared<BatchHeader>();
  Requests requests;
  Batch batch;
  Acks bare;
  Acks full;
  Replies replies;
  for (std::uint32_t i = 0; i < entries; ++i) {
    auto r = std::make_shared<Request>();
    r->number.value = i;
    r->op = op;
    r->digest = request_digest(service, r->client, r->session, r->number, 0, op.view());
    header->references.push_back(reference_of(*r));
    batch.requests.push_back(std::move(r));
    requests.items.push_back({RequestNumber{i}, 0, op});
    bare.items.push_back({RequestNumber{i}, reply_digest(reply.view()), false, {}});
    full.items.push_back({RequestNumber{i}, reply_digest(reply.view()), true, reply});
    replies.items.push_back({i, reply});
  }
  batch.header = header;
  print("Prepare", {service, Prepare{}}, 1);
  print("Requests", {service, requests}, entries);
  print("PrePrepare", {service, PrePrepare{View{}, header, {}}}, entries);
  print("Batch", {service, batch}, entries);
  print("Orders", {service, Orders{Seq{1}, digests(entries)}}, entries);
  Vote vote;
  vote.replies = digests(entries);
  print("Vote", {service, vote}, entries);
  print("Replies", {service, replies}, entries);
  print("Acks, no bodies", {service, bare}, entries);
  print("Acks, bodies", {service, full}, entries);

  std::size_t sum = 0;
  const double header_digest = nanoseconds([&] { sum += batch_digest(*header).bytes[0]; });
  const double one_request = nanoseconds(
      [&] { sum += request_digest(service, ClientId{1}, SessionId{2}, RequestNumber{3}, 0, op.view()).bytes[0]; });
  const double one_reply = nanoseconds([&] { sum += reply_digest(reply.view()).bytes[0]; });
  std::printf("batch_digest %.1f ns per reference, request_digest %.0f ns, reply_digest %.0f ns  (%zu)\n",
              header_digest / static_cast<double>(entries), one_request, one_reply, sum % 2);
  return 0;
}

}  // namespace
}  // namespace zz::agreement

int main(int argc, char** argv) {
  const unsigned long entries = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 250;
  if (entries == 0 || entries > 1024) {
    std::fprintf(stderr, "codec_bench: ENTRIES must be 1..1024\n");
    return 1;
  }
  return zz::agreement::run(entries);
}
