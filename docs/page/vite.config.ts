import { defineConfig, type Plugin } from "vite";

/** One file, which works from a disk: script and style are put into the page, under the page's own name. */
function oneFile(name: string): Plugin {
  return {
    name: "one-file",
    enforce: "post",
    generateBundle(_, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") throw new Error("one-file: the build made no index.html");
      let html = String(page.source);
      const put = (pattern: RegExp, text: string, file: string): void => {
        if (!pattern.test(html)) throw new Error(`one-file: the page does not name ${file}`);
        html = html.replace(pattern, () => text);
        delete bundle[file];
      };
      for (const [file, part] of Object.entries(bundle)) {
        const named = file.replaceAll(".", "\\.");
        if (part.type === "chunk") {
          const code = part.code.trim().replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
          put(new RegExp(`<script[^>]* src="[^"]*${named}"[^>]*></script>\\s*`), "", file);
          html = html.replace("</body>", () => `<script type="module">${code}</script>\n</body>`);
        } else if (file.endsWith(".css")) {
          put(new RegExp(`<link[^>]* href="[^"]*${named}"[^>]*>`), `<style>${String(part.source).trim()}</style>`, file);
        } else if (file !== "index.html") throw new Error(`one-file: ${file} would lie beside the page`);
      }
      page.fileName = name;
      page.source = html;
    },
  };
}

export default defineConfig({
  base: "./",
  publicDir: false,
  build: {
    outDir: "..", // docs/
    emptyOutDir: false,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 1 << 20,
    reportCompressedSize: false,
  },
  plugins: [oneFile("transposed-convolution.html")],
});
