import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { allCommands, COMMANDS } from "../lib/cli-commands.ts";
import { ALL_VARIABLES, MAIN_VARIABLES } from "../lib/cli-environment.ts";
import { formatHelp, formatTopic, type HelpTopic } from "../lib/cli-help.ts";
import { DEFAULT_BASE_IMAGE } from "../lib/config.ts";
import { KUBECTL_FLAGS } from "../lib/kubectl.ts";
import { runKoHere } from "./helpers/world-host.ts";

const TOPICS: readonly HelpTopic[] = ["overview", "environment", ...allCommands().map(([name]) => name)];

/** The lines of a help text that may be longer than the terminal: a person types them as they are. */
function wrapped(text: string): readonly string[] {
  const [usage = "", ...rest] = text.split(/\n\n(?:Examples:\n)/);
  const prose = rest.map((part) => part.replace(/^(?: {2}.*\n|\n(?= {2}))*/, ""));
  return [usage.replace(/\nUsage:\n.*/, ""), ...prose].join("\n").split("\n");
}

describe("formatTopic()", () => {
  test.each([40, 52, 60, 80, 100])("fits %d columns", (columns) => {
    const longest = TOPICS.flatMap((topic) => {
      return wrapped(formatTopic(topic, columns)).filter((line) => line.length > columns && line.trim().includes(" "));
    });
    expect(longest).toEqual([]);
  });

  test("uses 80 columns in a pipe, and no more than 100", () => {
    const widest = (columns: number | undefined): number =>
      Math.max(
        ...formatTopic("environment", columns)
          .split("\n")
          .map((line) => line.length),
      );
    expect([widest(undefined) <= 80, widest(undefined) > 70, widest(300) <= 100, widest(300) > 90]).toEqual([
      true,
      true,
      true,
      true,
    ]);
  });

  test("has all words in every width", () => {
    const words = (columns: number): readonly string[] =>
      TOPICS.map((topic) => formatTopic(topic, columns).replace(/\s+/g, " "));
    expect([words(40), words(60)]).toEqual([words(100), words(100)]);
  });

  test("has examples first, then groups, those of kubectl in short", () => {
    const headings = formatTopic("apply").match(/^\S.*:$/gm);
    expect(headings).toEqual([
      "Usage:",
      "Examples:",
      "What to build:",
      "Where it goes:",
      "Image:",
      "Speed:",
      "Output:",
      'kubectl (see "kubectl options"):',
      "Environment variables:",
    ]);
    const short = /kubectl \(see "kubectl options"\):\n((?: {2}.*\n)*)/.exec(formatTopic("apply"))?.[1] ?? "";
    expect(short.split("\n").length).toBeLessThan(7);
    expect(Object.keys(KUBECTL_FLAGS).filter((name) => !short.includes(`--${name}`))).toEqual([]);
  });

  test("has an example and a line on KO_DOCKER_REPO in the overview", () => {
    const text = formatTopic("overview");
    expect(text).toContain("  export KO_DOCKER_REPO=registry.example.com/team\n  ko build ./cmd/api\n");
    expect(text).toContain("KO_DOCKER_REPO is the one variable to set");
    expect(text.indexOf("Examples:")).toBeLessThan(text.indexOf("Commands:"));
  });

  test("is as wide as the terminal that it goes to", async () => {
    const show = async (stdoutColumns: number | undefined): Promise<string> =>
      (await runKoHere(["build", "--help"], { cwd: "/", env: {}, host: { stdoutColumns } })).stdout;
    const wanted = [undefined, 50, 90].map((width) => formatHelp(["build", COMMANDS.build], width ?? 80));
    expect([await show(undefined), await show(50), await show(90)]).toEqual(wanted);
  });

  test("names the default base image", () => {
    expect(MAIN_VARIABLES["KO_DEFAULTBASEIMAGE"]).toEndWith(`(default: ${DEFAULT_BASE_IMAGE})`);
  });
});

/** Upper-case words in quotes that are no variables of the environment, and what they are. */
const OTHERS: Readonly<Record<string, string>> = {
  ALL_PROXY: "ko doctor says that it has no effect",
  BLOB_UPLOAD_INVALID: "an error of registries",
  BLOB_UPLOAD_UNKNOWN: "an error of registries",
  CERT_HAS_EXPIRED: "an error of TLS",
  CERT_NOT_YET_VALID: "an error of TLS",
  DEPENDS_ON: "a relationship of SPDX",
  DESCENDANT_OF: "a relationship of SPDX",
  DIGEST_INVALID: "an error of registries",
  EAI_AGAIN: "an error of the system",
  ERR_INVALID_ARG_VALUE: "an error of Bun",
  ERR_PROXY_TUNNEL: "an error of ko",
  INSUFFICIENT_SCOPE: "an error of registries",
  KO_DATA_PATH: "a variable that ko sets in containers",
  NAME_UNKNOWN: "an error of registries",
  QUOTE_DOUBLE: "a style of YAML",
  QUOTE_SINGLE: "a style of YAML",
  RESOURCE_EXHAUSTION: "an error of the yaml package",
  SIGKILL: "a signal",
  SIGTERM: "a signal",
  SQLITE_BUSY: "an error of SQLite",
  TAG_INVALID: "an error of registries",
  VARIANT_OF: "a relationship of SPDX",
};

/** Variables of Go that ko reads through `go env` or passes on. */
const OF_GO = /^(?:GO[A-Z0-9]*|CGO_ENABLED)$/;

/** Listed for people, and read by other programs. */
const OF_OTHERS = ["KUBECONFIG", "..."];

/** The variables that the modules of lib/ name, with the modules. */
function findVariables(): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const lib = join(import.meta.dir, "../lib");
  // `env["NAME"]`, `env.NAME`, a quoted name with an underscore, and names that are taken out of the environment.
  const names =
    /\benv\w*\??\.?\[\s*"(\w+)"\s*\]|\benv\.([A-Z][A-Z0-9_]+)\b|"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"|\{((?: ?[A-Z][A-Z0-9_]+(?:: \w+)?(?: = "")?,?)+) \} = [\w.]*env\b|\(\s*"([A-Z]{6,})"\)/g;
  for (const file of readdirSync(lib).filter((name) => name.endsWith(".ts") && name !== "cli-environment.ts")) {
    const code = readFileSync(join(lib, file), "utf8").replace(/^\s*(?:\/\/|\/\*|\*(?:\s|\/|$)).*$/gm, "");
    for (const [, a, b, c, list, d] of code.matchAll(names)) {
      const taken =
        list === undefined
          ? [a ?? b ?? c ?? d ?? ""]
          : Array.from(list.matchAll(/\b[A-Z][A-Z0-9_]+\b/g), ([name]) => name);
      for (const name of taken.map((each) => each.toUpperCase()))
        if (!Object.hasOwn(OTHERS, name)) found.set(name, file);
    }
  }
  return found;
}

describe("ko help environment", () => {
  const listed = new Set(
    ALL_VARIABLES.flatMap(([, variables]) => Object.keys(variables).flatMap((names) => names.split(", "))),
  );
  const read = findVariables();

  test("lists every variable that a module reads", () => {
    expect(read.size).toBeGreaterThan(70);
    expect([...read].filter(([name]) => !listed.has(name) && !OF_GO.test(name))).toEqual([]);
  });

  test("lists no variable that no module reads", () => {
    expect([...listed].filter((name) => !read.has(name) && !OF_GO.test(name) && !OF_OTHERS.includes(name))).toEqual([]);
  });

  test("is reached from the help of commands, and prints all", () => {
    const text = formatTopic("environment");
    expect([...listed].filter((name) => !text.includes(name))).toEqual([]);
    expect(formatTopic("build")).toContain('"ko help environment" lists all.');
  });
});
