#pragma once

// One RequestTable with short words for what happens to it.

#include <string_view>
#include <vector>

#include "agreement/request_table.hpp"
#include "tests/agreement/make_request.hpp"

namespace zz::agreement::testing {

inline constexpr std::uint64_t kWindowOfClient = 8;

inline std::vector<std::uint32_t> clients_of(const std::vector<Reference>& references) {
  std::vector<std::uint32_t> out;
  for (const Reference& r : references) out.push_back(r.client.value);
  return out;
}

class Table {
 public:
  explicit Table(RequestLimits limits = {}) : table(limits) {}
  ~Table() { table.check(); }

  Refusal vouch(std::uint32_t client, std::uint64_t session, std::uint64_t number, std::string_view op = "op") {
    return table.vouch(make_request(client, session, number, op)).refusal;
  }
  std::vector<RequestPtr> chosen(std::uint64_t n, const std::vector<RequestPtr>& requests) {
    std::vector<RequestPtr> bodies;
    table.claim_chosen(Seq{n}, references(requests), bodies, unvouched);
    return bodies;
  }
  Refusal claim(std::uint64_t n, const std::vector<RequestPtr>& requests) {
    std::vector<RequestPtr> bodies;
    return table.claim(Seq{n}, references(requests), bodies, unvouched);
  }
  void deliver(std::uint64_t n, const std::vector<RequestPtr>& requests) {
    table.deliver(Seq{n}, references(requests));
  }
  std::vector<Reference> cut(std::uint64_t n, std::uint32_t most = 1'000) {
    return table.cut(Seq{n}, most, 1u << 20).references;
  }
  bool vouched_by(int node, const RequestPtr& request) {
    return table.vouched_by(NodeId{static_cast<std::uint16_t>(node)}, reference_of(*request));
  }
  static std::vector<Reference> references(const std::vector<RequestPtr>& requests) {
    std::vector<Reference> out;
    for (const RequestPtr& request : requests) out.push_back(reference_of(*request));
    return out;
  }

  RequestTable table;
  std::uint32_t unvouched = 0;
};

}  // namespace zz::agreement::testing
