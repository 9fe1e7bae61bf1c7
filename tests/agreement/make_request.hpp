#pragma once

// Requests as their clients make them, for the tests of what orders them.

#include <memory>
#include <string_view>
#include <vector>

#include "agreement/messages.hpp"

namespace zz::agreement::testing {

inline RequestPtr make_request(std::uint32_t client, std::uint64_t session, std::uint64_t number,
                               std::string_view op = "op", ServiceId service = {}) {
  auto request = std::make_shared<Request>();
  request->client = ClientId{client};
  request->session = SessionId{session};
  request->number = RequestNumber{number};
  request->op = SharedBytes::copy(op);
  request->digest = request_digest(service, request->client, request->session, request->number, 0, request->op.view());
  return request;
}

inline std::vector<std::uint64_t> numbers_of(const std::vector<Reference>& references) {
  std::vector<std::uint64_t> out;
  for (const Reference& reference : references) out.push_back(reference.number.value);
  return out;
}

}  // namespace zz::agreement::testing
