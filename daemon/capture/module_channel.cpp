// SPDX-License-Identifier: Apache-2.0
// The direct way: this process has the capability.
#include "capture/module_channel.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/socket.h>

#include <fmt/format.h>
#include <linux/netlink.h>

#include <blkferry.h>

#include "capture/module_family.hpp"

namespace blkferry::capture {

namespace {

constexpr int receive_seconds_max = 60;  // beyond every bounded wait of the module
/// The kernel's are of 32 KiB at most.
constexpr std::size_t datagram_bytes_max = 64U << 10;

class DirectChannel final : public ModuleChannel {
public:
    DirectChannel(Fd socket, std::uint16_t family) : socket_(std::move(socket)), family_(family) {}

    [[nodiscard]] std::uint16_t family() const noexcept override { return family_; }

    [[nodiscard]] Result<void> send(std::span<std::byte> message, int) override {
        const sockaddr_nl kernel{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = 0, .nl_groups = 0};
        ssize_t n = 0;
        do
            n = ::sendto(socket_.get(), message.data(), message.size(), 0, static_cast<const sockaddr*>(static_cast<const void*>(&kernel)),
                         sizeof(kernel));
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return fail_errno(errno, "cannot ask the module");
        return {};
    }

    [[nodiscard]] Result<std::span<std::byte>> receive() override {
        for (;;) {
            sockaddr_nl from{};
            iovec part{buffer_.data(), buffer_.size()};
            msghdr m{};
            m.msg_name = &from;
            m.msg_namelen = sizeof(from);
            m.msg_iov = &part;
            m.msg_iovlen = 1;
            const ssize_t n = ::recvmsg(socket_.get(), &m, 0);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0 && errno == EAGAIN)
                return fail(Errc::timeout, fmt::format("the module did not answer in {} s", receive_seconds_max));
            if (n < 0)
                return fail_errno(errno, "cannot read the module's answer");
            if ((m.msg_flags & MSG_TRUNC) != 0)
                return fail(Errc::corrupt, "the module's answer is larger than any");
            if (from.nl_pid == 0)  // else not from the kernel
                return std::span(buffer_).first(static_cast<std::size_t>(n));
        }
    }

    [[nodiscard]] Result<Fd> open_ring(std::uint32_t disk) override { return open_file(fmt::format("/dev/blkferry/{}", disk), O_RDWR); }

private:
    Fd socket_;
    std::uint16_t family_;
    alignas(8) std::array<std::byte, datagram_bytes_max> buffer_{};
};

}  // namespace

Result<std::unique_ptr<ModuleChannel>> ModuleChannel::direct() {
    BLKFERRY_TRY_ASSIGN(const std::uint16_t family, module_family());
    Fd s(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC));
    const int on = 1;
    const timeval limit{receive_seconds_max, 0};
    const sockaddr_nl own{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = 0, .nl_groups = 0};
    if (!s || ::bind(s.get(), static_cast<const sockaddr*>(static_cast<const void*>(&own)), sizeof(own)) != 0 ||
        ::setsockopt(s.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)) != 0 ||
        ::setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0)
        return fail_errno(errno, "cannot make a netlink socket");
    return std::make_unique<DirectChannel>(std::move(s), family);
}

}  // namespace blkferry::capture
