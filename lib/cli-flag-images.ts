/** Tables of the flags of commands that take published images. */
import { BUILD_COMMAND_FLAGS, CONFIG_FLAGS } from "./cli-flag-groups.ts";

/** The flags that `ko rebase` has in its own form. */
const REBASING_FLAGS = {
  base: {
    kind: "text",
    default: "",
    placeholder: "NAME",
    help: "The base to put the images on. The default is the base that each image names, by its tag.",
  },
  tags: {
    kind: "list",
    short: "t",
    default: [],
    placeholder: "TAG",
    help: "Tags to move to the new images. Without the flag no tag moves.",
  },
  "insecure-registry": {
    kind: "bool",
    default: false,
    help: "Allow plain HTTP and unverified TLS for the registries of the images.",
  },
  sbom: {
    kind: "text",
    default: "spdx",
    placeholder: "KIND",
    values: ["spdx", "none"],
    help: "Software bill of materials: spdx pushes one, none pushes none. Without the flag an image gets one if it had one.",
  },
} as const;

/** The flags of `ko size`. */
export const SIZE_FLAGS: Pick<typeof REBASING_FLAGS, "insecure-registry"> &
  Pick<typeof CONFIG_FLAGS, "json" | "verbose" | "quiet"> = {
  json: CONFIG_FLAGS.json,
  "insecure-registry": REBASING_FLAGS["insecure-registry"],
  verbose: CONFIG_FLAGS.verbose,
  quiet: CONFIG_FLAGS.quiet,
};

/** The flags of `ko rebase`. */
export const REBASE_FLAGS: typeof REBASING_FLAGS & Pick<typeof BUILD_COMMAND_FLAGS, "verbose" | "quiet"> = {
  ...REBASING_FLAGS,
  verbose: BUILD_COMMAND_FLAGS.verbose,
  quiet: BUILD_COMMAND_FLAGS.quiet,
};
