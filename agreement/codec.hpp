#pragma once

// Messages to bytes and back (Cap'n Proto flat messages, schema in messages.capnp). The only place of the
// folder that sees generated code. Any thread; no state.

#include "agreement/messages.hpp"
#include "base/refusal.hpp"

namespace zz::agreement {

// Bounds that decode() enforces before it believes any length.
struct CodecLimits {
  std::uint32_t op_bytes_max = 4u << 20;
  std::uint32_t batch_requests_max = 1024;
  std::uint32_t slots_max = 11;     // 2 * kFaultsMax + 1
  std::uint32_t orders_max = 4096;  // digests in one Orders
  std::uint32_t status_bytes_max = 1u << 20;
};

// One channel message (a multiple of 8 bytes long).
SharedBytes encode(const Message& message);

struct Decoded {
  Refusal refusal = Refusal::kNone;  // kMalformed or kOversize: `message` is meaningless
  Message message;
};

// Computes every digest that is not carried (batch, request). Never throws; cost is linear in bytes.size().
// The result's payloads share `bytes`, which must be 8-byte aligned (channels deliver it so).
Decoded decode(const SharedBytes& bytes, const CodecLimits& limits);

}  // namespace zz::agreement
