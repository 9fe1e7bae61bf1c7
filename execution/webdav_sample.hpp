#pragma once

// The sample web service: nginx with WebDAV (Debian packages nginx-light and libnginx-mod-http-dav-ext), as the demo
// and the tests run it. nginx itself is not changed; only its configuration is ours.

#include <string>
#include <vector>

#include "base/result.hpp"
#include "crypto/cluster.hpp"

namespace zz::execution {

// What goes into a ServiceEntry with adapter "http".
struct WebService {
  std::vector<std::string> command;
  std::string initial_state;
  crypto::HttpOptions http;
};

// Makes directory `dir` (its parent must exist) with the initial state: nginx.conf, the empty web root files/ and tmp/
// for bodies that come. GET, HEAD, PUT, DELETE, MKCOL, COPY, MOVE, OPTIONS and PROPFIND work on the whole tree; bodies
// up to 8 MiB. `dir` must be absolute. An error names the package that is missing.
Result<WebService> make_webdav_sample(const std::string& dir);

}  // namespace zz::execution
