// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/result.hpp"
#include "control/server.hpp"

namespace blkferry::server {

class Server;

/// The commands of the server's control socket; docs/control.md describes them.
class Control {
public:
    [[nodiscard]] static Result<std::unique_ptr<Control>> create(Server& server);
    ~Control();

private:
    Control(Server& server, std::unique_ptr<control::ControlServer> socket);
    void status(const control::Json& request, control::Reply reply);
    void points(const control::Json& request, control::Reply reply);
    void point_delete(const control::Json& request, control::Reply reply);
    void verify_point(const control::Json& request, control::Reply reply);
    void export_point(const control::Json& request, control::Reply reply);
    void reload(const control::Json& request, control::Reply reply);

    // control_enrolment.cpp
    void enroll_token(const control::Json& request, control::Reply reply);
    void tokens(const control::Json& request, control::Reply reply);
    void token_revoke(const control::Json& request, control::Reply reply);
    void revoke(const control::Json& request, control::Reply reply);
    [[nodiscard]] control::Json enrolment_status();
    [[nodiscard]] control::Json certificate_status() const;

    Server& server_;
    std::uint64_t started_ns_;
    std::shared_ptr<std::atomic<bool>> stop_ = std::make_shared<std::atomic<bool>>(false);
    std::unique_ptr<control::ControlServer> socket_;
};

}  // namespace blkferry::server
