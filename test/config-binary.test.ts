import { describe, expect, test } from "bun:test";
import { loadConfig } from "../lib/config.ts";
import { describeError } from "../lib/errors.ts";
import { writeTree } from "./helpers/world-folders.ts";

/** The path of a program, or the warning or the mistake about it. */
async function load(binary: string): Promise<string | undefined> {
  using tree = writeTree({ ".ko.yaml": `builds:\n- binary: ${JSON.stringify(binary)}\n` });
  try {
    const { builds, warnings } = await loadConfig({ env: {}, cwd: tree.path });
    return warnings[0] ?? builds[0]?.binary?.value;
  } catch (error) {
    return describeError(error).replace(/\n {2}[^\n]*\s*$/, "");
  }
}

describe("binary of builds[]", () => {
  test.each(["/manager", "/usr/local/bin/web", "/app/bin/x-y.z", "/ko-app/other", "/bins/a", "/a b/é", "/lib2/x"])(
    "takes %s",
    async (path) => {
      expect(await load(path)).toBe(path);
    },
  );

  test.each([
    ["cli", "/ko-app/cli"],
    ["{{ .ProjectName }}", "/ko-app/NAME"],
    ["", "/ko-app/NAME"],
  ])("warns of %j, which GoReleaser has", async (name, path) => {
    expect(await load(name)).toBe(
      `.ko.yaml:2:11: binary "${name}" has no effect; it is the path of the program in the image, such as ${path}`,
    );
  });

  test.each<[string, string]>([
    ["bin/app", '"bin/app" is relative, wanted an absolute path'],
    ["./app", '"./app" is relative, wanted an absolute path'],
    ["C:\\app", '"C:\\app" is relative, wanted an absolute path'],
    ["/a\\b", '"/a\\b" has a backslash, wanted / on all systems'],
    ["/a/../b", '"/a/../b" has "..", wanted a path without'],
    ["/..", '"/.." has "..", wanted a path without'],
    ["//app", '"//app" is not clean, wanted "/app"'],
    ["/a/./b", '"/a/./b" is not clean, wanted "/a/b"'],
    ["/app/", '"/app/" is not clean, wanted "/app"'],
    ["/", '"/" is not clean, wanted "/"'],
    ["/{{.Env.A}}", '"/{{.Env.A}}" is a template, wanted a path'],
    ["/a\nb", '"/a\\nb" has a control character'],
    ["/var/run/ko", '"/var/run/ko" cannot hold a program: /var/run/ko holds kodata'],
    ["/var/run/ko/app", '"/var/run/ko/app" cannot hold a program: /var/run/ko holds kodata'],
    ["/var/run/app", '"/var/run/app" cannot hold a program: /var/run is a symlink in many bases'],
    [
      "/bin/app",
      '"/bin/app" cannot hold a program: /bin is a symlink in many bases, and a folder would take its place',
    ],
    ["/bin", '"/bin" cannot hold a program: /bin is a symlink in many bases, and a folder would take its place'],
    ["/tmp/app", '"/tmp/app" cannot hold a program: containers mount /tmp anew'],
    [
      "/home/nonroot/app",
      '"/home/nonroot/app" cannot hold a program: the folders of a program are read-only, and users write there',
    ],
    ["/usr/bin", '"/usr/bin" is a folder, wanted the path of a file'],
    ["/ko-app", '"/ko-app" is a folder, wanted the path of a file'],
    ["/ko-app/dlv", '--debug puts Delve at "/ko-app/dlv"'],
  ])("refuses %j", async (path, why) => {
    expect(await load(path)).toBe(`Error: Cannot use binary of builds[0] at .ko.yaml:2:11: ${why}`);
  });
});
