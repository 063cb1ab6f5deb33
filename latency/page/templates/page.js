(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const holders = [...document.querySelectorAll(".plot")];
  const figures = new Map(holders.map((holder) => [holder, JSON.parse(holder.querySelector("script").textContent)]));
  // Colours are CSS variables, whose values depend on the theme.
  const themed = (value, styles) => {
    if (typeof value === "string") {
      return value.startsWith("var(--") ? styles.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, styles));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, styles)]));
    }
    return value;
  };
  const config = {
    responsive: true, displayModeBar: false,
  };
  const draw = async (holder) => {
    const figure = themed(figures.get(holder), getComputedStyle(document.documentElement));
    // On a touch screen, a drag over a plot scrolls the page.
    if (matchMedia("(pointer: coarse)").matches) figure.layout.dragmode = false;
    await Plotly.react(holder, figure.data, figure.layout, config);
  };
  const drawAll = async () => {
    document.documentElement.dataset.plots = "drawing";
    for (const holder of holders) {
      await draw(holder);
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.plots = "drawn";
  };
  dark.addEventListener("change", drawAll);
  drawAll();
})();
