#pragma once

// WebdavClient: one keep-alive HTTP connection to a WebDAV server, by libcurl: on purpose not the HTTP
// library that the gateway is made of. Blocking; one thread at a time. init_webdav_clients() comes first,
// before any thread is made.

#include <memory>
#include <string>

#include "apps/webdav_model.hpp"
#include "base/result.hpp"

namespace zz::apps {

inline constexpr std::size_t kDavReplyBytesMax = 16u << 20;
inline constexpr long kDavTimeoutMs = 45'000;  // longer than a gateway's answer takes to be given up

// libcurl's own start-up; false when it fails. Idempotent.
bool init_webdav_clients();

class WebdavClient {
 public:
  // `base_url` without a final '/', e.g. "http://127.0.0.1:8080".
  explicit WebdavClient(std::string base_url);
  ~WebdavClient();
  WebdavClient(WebdavClient&&) noexcept;
  WebdavClient& operator=(WebdavClient&&) noexcept;

  // Error: no reply (the transport's words). Whether the request was carried out is then unknown.
  Result<DavReply> perform(const DavRequest& request);
  // Connections made so far: 1 after any number of requests when keep-alive works.
  [[nodiscard]] long connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace zz::apps
