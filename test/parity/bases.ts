/** Parity cases: what the base image says, where it comes from, and the platforms of it. */
import { goMod, HELLO, mainGo } from "../helpers/go.ts";
import type { BaseName } from "../helpers/oracle-bases.ts";
import type { Case } from "../helpers/oracle.ts";

const SINGLE: readonly (readonly [BaseName, string])[] = [
  ["oci", "an OCI image"],
  ["docker", "a Docker image"],
  ["rich", "every field of a configuration, odd times, fields nobody knows"],
  ["rich-docker", "the same in a Docker image"],
  ["no-path", "no PATH"],
  ["bare", "nothing but a platform"],
  ["no-config", "a configuration without config"],
  ["no-layers", "no layers"],
  ["unicode", "letters and signs that JSON escapes"],
  ["annotated", "annotations of its own"],
  ["artifact-type", "an artifactType"],
  ["no-media-type", "a manifest without mediaType"],
];

export const BASE_CASES: readonly Case[] = [
  ...SINGLE.map(([base, what]) => ({ name: `base: ${what}`, base })),
  // crane takes each layer of a registry for gzip, whatever its media type.
  { name: "base: layers that are not compressed", base: "plain-tar", validate: false },
  {
    name: "base: a user, labels and a kodata on every field",
    base: "rich",
    args: [".", "--image-user=0", "--image-label=a=new"],
  },
  {
    name: "base: named by digest",
    config: ({ oci }) => `defaultBaseImage: ${oci.reference.replace(/:v1$/, "")}@${oci.digest}\n`,
  },
  {
    name: "base: named by tag and digest",
    config: ({ oci }) => `defaultBaseImage: ${oci.reference}@${oci.digest}\n`,
  },
  {
    name: "base: an override for an import path with capitals",
    base: "rich",
    config: ({ oci, rich }) =>
      `defaultBaseImage: ${oci.reference}\nbaseImageOverrides:\n  example.com/Org/App/cmd/One: ${rich.reference}\n`,
    files: { "go.mod": goMod("example.com/Org/App"), "cmd/One/main.go": mainGo() },
    args: ["./cmd/One"],
  },
  {
    name: "base: KO_DEFAULTBASEIMAGE beats the file",
    base: "docker",
    config: ({ oci }) => `defaultBaseImage: ${oci.reference}\n`,
    env: ({ docker }) => ({ KO_DEFAULTBASEIMAGE: docker.reference }),
  },
];

export const PLATFORM_CASES: readonly Case[] = [
  { name: "platforms: none given takes linux/amd64 of an index", base: "index" },
  { name: "platforms: one of an index gives an image", base: "index", args: [".", "--platform=linux/arm64"] },
  {
    name: "platforms: several give an index in the base's order",
    base: "index",
    args: [".", "--platform=linux/amd64,linux/arm64"],
    files: { ...HELLO, "kodata/f": "data\n" },
  },
  {
    name: "platforms: the flag repeated",
    base: "index",
    args: [".", "--platform=linux/s390x", "--platform", "linux/arm64"],
  },
  { name: "platforms: all, without the attestations", base: "index", args: [".", "--platform=all"] },
  { name: "platforms: all of a Docker list", base: "list", args: [".", "--platform=all"] },
  { name: "platforms: all of an index with one entry gives an image", base: "single", args: [".", "--platform=all"] },
  { name: "platforms: one of a Docker list", base: "list", args: [".", "--platform=linux/arm/v6"] },
  { name: "platforms: arm without variant means every variant", base: "index", args: [".", "--platform=linux/arm"] },
  { name: "platforms: arm/v7", base: "index", args: [".", "--platform=linux/arm/v7"] },
  { name: "platforms: amd64/v3 compiles with GOAMD64", base: "amd64", args: [".", "--platform=linux/amd64/v3"] },
  { name: "platforms: every amd64, with variants and features", base: "amd64", args: [".", "--platform=linux/amd64"] },
  { name: "platforms: GOOS and GOARCH", base: "index", env: { GOOS: "linux", GOARCH: "arm64" } },
  { name: "platforms: GOARCH=arm with GOARM", base: "index", env: { GOOS: "linux", GOARCH: "arm", GOARM: "7" } },
  {
    name: "platforms: defaultPlatforms in .ko.yaml",
    base: "index",
    config: ({ index }) => `defaultBaseImage: ${index.reference}\ndefaultPlatforms:\n- linux/arm64\n- linux/s390x\n`,
  },
  {
    name: "platforms: KO_DEFAULTPLATFORMS beats the file",
    base: "index",
    config: ({ index }) => `defaultBaseImage: ${index.reference}\ndefaultPlatforms: [linux/s390x]\n`,
    env: { KO_DEFAULTPLATFORMS: "linux/arm64,linux/amd64" },
  },
  {
    name: "windows: the first three parts of the version find the base",
    base: "windows",
    args: [".", "--platform=windows/amd64:10.0.20348"],
  },
  { name: "windows: every version gives an index", base: "windows", args: [".", "--platform=windows/amd64"] },
  { name: "windows: beside linux", base: "windows", args: [".", "--platform=all"] },
];
