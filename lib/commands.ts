/**
 * Runs the command that a command line asks for. Each command's modules are loaded when it runs.
 */
import { logLevelOf, parseCommandLine } from "./cli.ts";
import type { Host } from "./host.ts";
import { createLog } from "./log.ts";

/**
 * @param argv the words after the program's name
 * @throws {KoError} For everything that a user can cause.
 */
export async function runCommandLine(argv: readonly string[], host: Host): Promise<void> {
  const invocation = parseCommandLine(argv);
  switch (invocation.command) {
    case "help":
      return host.out(invocation.text);
    case "version": {
      const { koVersion } = await import("./version.ts");
      return host.out(`${await koVersion(host)}\n`);
    }
    case "build": {
      const [{ readBuildOptions }, { loadConfig }, { publishPrograms }] = await Promise.all([
        import("./options.ts"),
        import("./config.ts"),
        import("./session.ts"),
      ]);
      const log = createLog(logLevelOf(invocation.flags), host.err);
      const build = readBuildOptions(invocation.flags, invocation.given);
      for (const warning of build.warnings) log.warn(warning);
      const config = await loadConfig(host);
      const args = invocation.positionals.length > 0 ? invocation.positionals : ["."];
      const published = await publishPrograms(args, { host, log, config, build });
      return host.out(published.map(({ reference }) => `${reference}\n`).join(""));
    }
  }
}
