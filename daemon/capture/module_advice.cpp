// SPDX-License-Identifier: Apache-2.0
#include "capture/module_advice.hpp"

#include <fstream>

namespace blkferry::capture {
namespace {

std::string first_line(const std::filesystem::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

/// Of "none [integrity] confidentiality" the word in brackets is in force.
bool locked_down(const std::filesystem::path& root) {
    const std::string line = first_line(root / "sys/kernel/security/lockdown");
    return line.contains('[') && !line.contains("[none]");
}

}  // namespace

std::string module_advice(const std::filesystem::path& root) {
    if (first_line(root / "sys/module/module/parameters/sig_enforce") != "Y" && !locked_down(root))
        return "load the module (modprobe blkferry)";
    return "this kernel loads only modules signed by a key that it trusts (Secure Boot): enrol the key that DKMS signs with "
           "(mokutil --import /var/lib/dkms/mok.pub, reboot, choose \"Enroll MOK\"), then load the module (modprobe blkferry)";
}

}  // namespace blkferry::capture
