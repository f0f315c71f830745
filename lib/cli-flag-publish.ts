/** Tables of the flags of publishing. */
/** The flags that say where images go, and what may be asked for them. */
export const PUBLISH_FLAGS = {
  config: {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Read this configuration file, or with auto the nearest .ko.yaml from here up to the root of the repository. Overrides KO_CONFIG_PATH.",
  },
  profile: {
    kind: "text",
    default: "",
    placeholder: "NAME",
    help: "Use the settings of this entry of profiles in .ko.yaml over those at its top. Overrides KO_PROFILE.",
  },
  push: {
    kind: "bool",
    default: true,
    help: "Push images to KO_DOCKER_REPO. --push=false only builds, and prints name, tag and digest.",
  },
  "also-push": {
    kind: "list",
    default: [],
    placeholder: "REPO",
    help: "Push to this repository, too. Repeatable. The images are built once, and an image gets its tags only when all repositories have stored it.",
  },
  local: {
    kind: "bool",
    short: "L",
    default: false,
    help: "Load images into the local Docker or podman daemon, as ko.local/IMPORTPATH. Overrides KO_DOCKER_REPO.",
  },
  "oci-layout-path": {
    kind: "text",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: "Add the images to an OCI image layout in this directory.",
  },
  "oci-archive": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write all images, of all platforms, to a tar file that holds an OCI image layout; - for stdout.",
  },
  tarball: {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write all images to a tar file for docker load; - for stdout.",
  },
  "image-refs": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Also write the image references to this file, one per line, once everything has succeeded.",
  },
  sbom: {
    kind: "text",
    default: "spdx",
    placeholder: "KIND",
    values: ["spdx", "none"],
    help: "Software bill of materials: spdx pushes an SPDX 2.3 document beside each image in a registry, none makes no SBOM. --oci-layout-path gets SBOMs only if --sbom=spdx is set.",
  },
  "sbom-dir": {
    kind: "text",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: "Also write the SBOMs to this directory, wherever the images go.",
  },
  "insecure-registry": {
    kind: "bool",
    default: false,
    help: "Allow plain HTTP and unverified TLS for the registries of KO_DOCKER_REPO and --also-push.",
  },
  offline: {
    kind: "bool",
    default: false,
    help: "Ask no registry, module proxy or web site, but for those on this machine. A base by tag is the one that an earlier run read; ko base pull reads whole bases.",
  },
} as const;
