#pragma once

// Log records to bytes and back, in the framing and with the schema of the messages (codec.hpp, messages.capnp). What
// a disk gives back is judged like what a peer sends. Any thread; no state.

#include "agreement/codec.hpp"
#include "agreement/log_record.hpp"

namespace zz::agreement {

// Requires what log_record.hpp says of `record`: everything inside is of `service`, n is the header's, an ordered
// record is whole, a stable one has its certificate, bodies come one per reference (null: none). An accepted record
// may lack its header, and then has no bodies.
SharedBytes encode_record(ServiceId service, const LogRecord& record);

struct DecodedRecord {
  Refusal refusal = Refusal::kNone;  // kMalformed or kOversize: the rest is meaningless
  ServiceId service;
  LogRecord record;
};

// Computes the digests of headers and requests; an accepted record whose header is not that of its digest is refused.
// Never throws; cost is linear in bytes.size(). The result's payloads share `bytes`, which must be 8-byte aligned.
// `limits` must not be below those the record was written under.
DecodedRecord decode_record(const SharedBytes& bytes, const CodecLimits& limits);

}  // namespace zz::agreement
