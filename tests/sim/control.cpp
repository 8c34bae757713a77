// SPDX-License-Identifier: Apache-2.0
// Stands for the control sockets: requests go straight to the handlers.
#include "control/server.hpp"

#include <nlohmann/json.hpp>

#include "world.hpp"

namespace blkferry::control {

using sim::world;

struct Reply::Slot {
    sim::World::Answer answer;
    bool ended = false;
    void end(bool ok, const Json& message) {
        if (std::exchange(ended, true))
            return;
        world->in(0, [answer = std::move(answer), ok, line = message.dump()] { answer(ok, line); });
    }
};

Reply::Reply(std::shared_ptr<Slot> slot) noexcept : slot_(std::move(slot)) {}
Reply::Reply(Reply&&) noexcept = default;
Reply& Reply::operator=(Reply&&) noexcept = default;
Reply::~Reply() {
    if (slot_ && world != nullptr)
        slot_->end(false, error_message({Errc::io, 0, "the request was dropped"}));
}
void Reply::line(const Json&) {}
void Reply::done(const Json& message) { slot_->end(true, message); }
void Reply::done() { done(Json::object()); }
void Reply::fail(const Error& error) { slot_->end(false, error_message(error)); }
bool Reply::ended() const noexcept { return slot_->ended; }
bool Reply::abandoned() const noexcept { return false; }
std::uint32_t Reply::uid() const noexcept { return 0; }

struct ControlServer::State {
    std::string path;
    std::map<std::string, Handler> handlers;
};

ControlServer::ControlServer(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

Result<std::unique_ptr<ControlServer>> ControlServer::create(loop::Loop&, std::filesystem::path path, const ServerOptions&) {
    auto state = std::make_shared<State>();
    state->path = path.string();
    world->sockets[state->path] = [weak = std::weak_ptr<State>(state)](const std::string& line, sim::World::Answer answer) {
        auto slot = std::make_shared<Reply::Slot>();
        slot->answer = std::move(answer);
        Reply reply(std::move(slot));
        const auto here = weak.lock();
        const auto request = parse_line(line);
        if (!request)
            return reply.fail(request.error());
        const auto command = need_string(*request, "cmd");
        if (!here || !command || !here->handlers.contains(*command))
            return reply.fail({Errc::not_found, 0, "no such command"});
        here->handlers.at(*command)(*request, std::move(reply));
    };
    return std::unique_ptr<ControlServer>(new ControlServer(std::move(state)));
}
ControlServer::~ControlServer() {
    if (world != nullptr)
        world->sockets.erase(state_->path);
}
void ControlServer::on(std::string command, Handler handler) {
    BLKFERRY_ASSERT(state_->handlers.emplace(std::move(command), std::move(handler)).second);
}
void ControlServer::shut_down() { world->sockets.erase(state_->path); }
std::size_t ControlServer::connections() const noexcept { return 0; }

}  // namespace blkferry::control
