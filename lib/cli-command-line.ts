/**
 * A command line for a report that people pass on: with the names of all flags, and the values of those that hold no
 * secrets.
 */
import type { Invocation } from "./cli-parse.ts";
import { redactIfUrl } from "./url.ts";

/** The command line of a command that builds. */
export type BuildingInvocation = Extract<
  Invocation,
  { readonly command: "build" | "resolve" | "apply" | "create" | "run" }
>;

/** The flags whose values are shown. Those of the others, such as `--ldflags` and `--image-label`, may hold secrets. */
const SHOWN: ReadonlySet<string> = new Set(
  (
    "filename kustomize selector tags platform compression jobs sbom sbom-dir oci-layout-path oci-archive tarball " +
    "image-refs debug-port progress metadata-file dotenv events timing"
  ).split(" "),
);

/** Returns the command line with long names of flags: `ko build --jobs=2 ./cmd/web -- …`. */
export function formatCommandLine({ afterDashes, command, flags, given, positionals }: BuildingInvocation): string {
  const values = new Map<string, boolean | string | number | readonly string[]>(Object.entries(flags));
  const shown = [...given].flatMap((name) => {
    const value = values.get(name);
    if (value === true) return `--${name}`;
    if (value === undefined || value === false) return `--${name}=false`;
    if (!SHOWN.has(name)) return `--${name}=…`;
    return (typeof value === "object" ? value : [String(value)]).map((each) =>
      formatWord(`--${name}=${redactIfUrl(each)}`),
    );
  });
  // Arguments of kubectl may be credentials, such as `--token`.
  const rest = afterDashes.length > 0 ? ["--", "…"] : [];
  return ["ko", command, ...shown, ...positionals.map((word) => formatWord(redactIfUrl(word))), ...rest].join(" ");
}

/** A word as a shell takes it. */
function formatWord(text: string): string {
  return /^[\w@%+=:,./~…-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
