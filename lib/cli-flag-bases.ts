/** Tables of the flags of base images. */
import { CONFIG_FLAGS } from "./cli-flag-groups.ts";

/** The flags of `ko base`. */
export const BASE_FLAGS: Pick<
  typeof CONFIG_FLAGS,
  "config" | "profile" | "platform" | "insecure-registry" | "json" | "verbose" | "quiet"
> = {
  config: CONFIG_FLAGS.config,
  profile: CONFIG_FLAGS.profile,
  platform: CONFIG_FLAGS.platform,
  "insecure-registry": CONFIG_FLAGS["insecure-registry"],
  json: CONFIG_FLAGS.json,
  verbose: CONFIG_FLAGS.verbose,
  quiet: CONFIG_FLAGS.quiet,
};
