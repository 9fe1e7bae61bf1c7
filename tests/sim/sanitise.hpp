#pragma once

// What the wire does to a message on its way: digests that are not carried are computed anew, and what could not be
// encoded or would not be decoded does not arrive. Byzantine nodes' messages pass here.

#include "agreement/messages.hpp"
#include "crypto/cluster.hpp"

namespace zz::sim {

// False: it would not arrive.
bool pass_the_wire(agreement::Message& message, const crypto::ClusterFile& cluster);

}  // namespace zz::sim
