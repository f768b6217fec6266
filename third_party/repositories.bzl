"""The libraries that nibble stands on, each pinned by sha256.

An embedding workspace calls the same macro:

    load("@nibble//third_party:repositories.bzl", "nibble_repositories")
    nibble_repositories()

A repository that the workspace has declared before the call is left alone, so
that a project keeps its own Abseil or GoogleTest.
"""

load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")

def _archive(name, **kwargs):
    if not native.existing_rule(name):
        http_archive(name = name, **kwargs)

def nibble_repositories():
    """Declares every third-party repository that nibble's targets use."""
    _rules()
    _archive(
        name = "com_google_absl",
        sha256 = "f50e5ac311a81382da7fa75b97310e4b9006474f9560ac46f54a9967f07d4ae3",
        strip_prefix = "abseil-cpp-20240722.0",
        urls = ["https://github.com/abseil/abseil-cpp/archive/refs/tags/20240722.0.tar.gz"],
    )
    _archive(
        name = "com_google_highway",
        build_file = "@nibble//third_party:highway.BUILD",
        sha256 = "7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343",
        strip_prefix = "highway-1.2.0",
        urls = ["https://github.com/google/highway/archive/refs/tags/1.2.0.tar.gz"],
    )
    _archive(
        name = "com_googlesource_code_re2",
        repo_mapping = {"@abseil-cpp": "@com_google_absl"},
        sha256 = "eb2df807c781601c14a260a507a5bb4509be1ee626024cb45acbd57cb9d4032b",
        strip_prefix = "re2-2024-07-02",
        urls = ["https://github.com/google/re2/archive/refs/tags/2024-07-02.tar.gz"],
    )
    _archive(
        name = "com_google_protobuf",
        build_file = "@nibble//third_party:protobuf.BUILD",
        sha256 = "930c2c3b5ecc6c9c12615cf5ad93f1cd6e12d0aba862b572e076259970ac3a53",
        strip_prefix = "protobuf-3.21.12",
        urls = ["https://github.com/protocolbuffers/protobuf/archive/refs/tags/v3.21.12.tar.gz"],
    )
    _archive(
        name = "nlohmann_json",
        build_file = "@nibble//third_party:nlohmann_json.BUILD",
        sha256 = "0d8ef5af7f9794e3263480193c491549b2ba6cc74bb018906202ada498a79406",
        strip_prefix = "json-3.11.3",
        urls = ["https://github.com/nlohmann/json/archive/refs/tags/v3.11.3.tar.gz"],
    )
    _archive(
        name = "utf8proc",
        build_file = "@nibble//third_party:utf8proc.BUILD",
        sha256 = "a0a60a79fe6f6d54e7d411facbfcc867a6e198608f2cd992490e46f04b1bcecc",
        strip_prefix = "utf8proc-2.8.0",
        urls = ["https://github.com/JuliaStrings/utf8proc/archive/refs/tags/v2.8.0.tar.gz"],
    )
    _archive(
        name = "minja",
        build_file = "@nibble//third_party:minja.BUILD",
        sha256 = "dc3ddd37497b79a4cd35fd41550e22b3b0139439de8be6eab3d2d024fed47bb4",
        strip_prefix = "minja-021c2293c187789ef13d56c6cfd89c9b134fd80f",
        urls = ["https://github.com/google/minja/archive/021c2293c187789ef13d56c6cfd89c9b134fd80f.tar.gz"],
    )
    _archive(
        name = "com_google_googletest",
        sha256 = "81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2",
        strip_prefix = "googletest-release-1.12.1",
        urls = ["https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz"],
    )
    _archive(
        name = "com_github_google_benchmark",
        build_file = "@nibble//third_party:benchmark.BUILD",
        sha256 = "32131c08ee31eeff2c8968d7e874f3cb648034377dfc32a4c377fa8796d84981",
        strip_prefix = "benchmark-1.9.1",
        urls = ["https://github.com/google/benchmark/archive/refs/tags/v1.9.1.tar.gz"],
    )

def _rules():
    """Build rules; bazelw replaces them by Debian's where that is the Bazel."""
    _archive(
        name = "bazel_skylib",
        sha256 = "bc283cdfcd526a52c3201279cda4bc298652efa698b10b4db0837dc51652756f",
        urls = ["https://github.com/bazelbuild/bazel-skylib/releases/download/1.7.1/bazel-skylib-1.7.1.tar.gz"],
    )
    _archive(
        name = "rules_cc",
        sha256 = "2037875b9a4456dce4a79d112a8ae885bbc4aad968e6587dca6e64f3a0900cdf",
        strip_prefix = "rules_cc-0.0.9",
        urls = ["https://github.com/bazelbuild/rules_cc/releases/download/0.0.9/rules_cc-0.0.9.tar.gz"],
    )
