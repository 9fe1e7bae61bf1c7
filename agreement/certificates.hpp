#pragma once

// What makes a stable certificate one (docs/protocol.md §6): for nodes and executors alike. Pure functions, any thread.

#include "agreement/messages.hpp"
#include "base/refusal.hpp"
#include "crypto/cluster.hpp"

namespace zz::agreement {

// 2f+1 to 3f+1 parts, ascending signers below 3f+1: kNone, kMalformed or kUnknownPeer.
[[nodiscard]] Refusal form_of(const std::vector<StableCertificate::Part>& quorum, std::uint32_t f);
// Of this service, above 0, and a quorum: kUnknownService besides. Says nothing about signatures.
[[nodiscard]] Refusal form_of(const StableCertificate& certificate, ServiceId service, std::uint32_t f);
// All of its signatures are good. Requires good form; the first bad one ends it.
[[nodiscard]] bool genuine(const crypto::ClusterFile& cluster, const StableCertificate& certificate);

}  // namespace zz::agreement
